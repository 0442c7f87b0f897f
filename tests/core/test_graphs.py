"""What a request means, rule by rule: who takes whose value, what comes back, and what is refused before it runs."""

from __future__ import annotations

import enum
import pickle
import random
from collections import OrderedDict, defaultdict, namedtuple

import pytest

from zmreg.core.fields import follow
from zmreg.core.graphs import Plan, plan
from zmreg.model.errors import CycleError, DuplicateStepError, FieldError, GraphError
from zmreg.model.graphs import Field, Item, Lit, Path, Ref, RPCCommand, Step

Pair = namedtuple("Pair", ("left", "right"))


def evaluate(planned: Plan) -> dict[str, object]:
    """What a request returns, with `echo`, `echos` and functions of no interest."""
    made: dict[str, object] = {}

    def value(step: str, path: Path) -> object:
        return follow(made[step], path, step)

    for level in planned.levels:
        for name in level:
            args, kwargs = planned.bind(name, value)
            fun = planned.steps[name].fun
            made[name] = list(args) if fun == "echos" else args[0] if args else kwargs
    return {name: made[name] for name in planned.outputs}


def bound(*args: object, **kwargs: object) -> tuple[tuple[object, ...], dict[str, object]]:
    """What a step with these arguments gets beside the steps a, b and "a.b", whose values are "A", "B" and "AB"."""
    others = [Step(name, "f") for name in ("a", "b", "a.b")]
    values = {"a": "A", "b": "B", "a.b": "AB"}

    def value(step: str, path: Path) -> object:
        return f"{values[step]}{''.join(map(str, path))}"

    return plan([*others, Step("mine", "f", args, kwargs)]).bind("mine", value)


# -- references -------------------------------------------------------------------------------------------------------

FIRST = ("|first", "echo", ("hi there!",))
SECOND = ("|second", "echo", ("|first",))
THIRD = ("|third", "echos", ("|first", "|second", "AND ME TOO"))
HI = "hi there!"


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(
    ("steps", "returned"),
    [
        ([("first", "echo", (HI,)), ("second", "echo", ("first",))], {"second": HI}),
        ([FIRST, SECOND, ("|third", "echos", ("|first", "AND ME TOO"))],
         {"|second": HI, "|third": [HI, "AND ME TOO"]}),
        ([FIRST, SECOND, THIRD], {"|third": [HI, HI, "AND ME TOO"]}),
        ([FIRST, SECOND, THIRD, ("|4th", "echo", ("|third",))], {"|4th": [HI, HI, "AND ME TOO"]}),
    ],
)  # fmt: skip
def test_R3_the_four_examples_in_any_order(
    steps: list[tuple[object, ...]], returned: dict[str, object], seed: int
) -> None:
    shuffled = list(steps)
    random.Random(seed).shuffle(shuffled)
    assert evaluate(plan(shuffled)) == returned


def test_R3_a_part_of_a_text_is_no_reference() -> None:
    texts = ("a!", "the a", "A", " a", "a ", "", "a.", ".a", "a..b", "a. Then", "a.b.", "x.a")
    assert bound(*texts) == (texts, {})


def test_R4_references_inside_containers_keep_their_types() -> None:
    args, _ = bound({"v": ["a", ("b",)]}, Pair("a", 1), {"a", "x"}, frozenset({"b"}))
    assert args == ({"v": ["A", ("B",)]}, Pair("A", 1), {"A", "x"}, frozenset({"B"}))
    assert [type(each) for each in args] == [dict, Pair, set, frozenset]
    ordered, counts = bound(OrderedDict(k="a"), defaultdict(list, k="b"))[0]
    assert type(ordered) is OrderedDict and ordered == {"k": "A"}
    assert type(counts) is defaultdict and counts.default_factory is list and counts == {"k": "B"}


def test_R4_keys_and_other_objects_are_opaque() -> None:
    class Word(enum.StrEnum):
        A = "a"

    class Text(str):
        pass

    opaque = ({"a": 1}, Word.A, Text("a"), b"a", bytearray(b"a"), range(3), lambda: "a")
    args, _ = bound(*opaque)
    assert all(one is other for one, other in zip(args, opaque, strict=True)), "as they are, not even copied"


def test_R4_what_is_changed_is_a_copy() -> None:
    given = ["a", [1]]
    (got,), _ = bound(given)
    assert got == ["A", [1]] and given == ["a", [1]] and got[1] is given[1]


def test_R4_a_list_inside_itself_is_not_followed_around() -> None:
    loop: list[object] = [1]
    loop.append(loop)
    assert bound(loop)[0][0] is loop
    shared: object = ["a"]
    for _ in range(60):  # 2 ** 60 lists to whoever looks at each
        shared = [shared, shared]
    assert plan([Step("a", "f"), Step("b", "f", (shared,))]).deps["b"] == ("a",)


def test_R4_what_is_nested_too_deep_is_refused_by_name() -> None:
    deep: object = ["a"]
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(GraphError, match="step 'b' are nested too deep"):
        plan([Step("a", "f"), Step("b", "f", (deep,))])
    while deep:  # or freeing it would recurse as deep
        deep = deep[0] if isinstance(deep, list) else None


def test_R4_a_value_that_cannot_be_in_a_set() -> None:
    planned = plan([Step("a", "f"), Step("b", "f", ({"a", "x"},))])
    with pytest.raises(GraphError, match=r"a set .* \(list\): use a list"):
        planned.bind("b", lambda step, path: [1])


def test_R5_references_in_kwargs_count_for_the_order_too() -> None:
    planned = plan([Step("b", "echo", kwargs={"x": "a", "y": [{"z": "a.k"}]}), Step("a", "echo")])
    assert planned.deps == {"b": ("a",), "a": ()} and planned.levels == (("a",), ("b",))
    assert planned.bind("b", lambda step, path: (step, *map(str, path))) == (
        (),
        {"x": ("a",), "y": [{"z": ("a", ".k")}]},
    )


def test_R6_the_longest_name_wins_and_the_exact_one_first() -> None:
    assert bound("a.b", "a.b.c", "a.c", "a.c.0.d", "b.x") == (("AB", "AB.c", "A.c", "A.c.0.d", "B.x"), {})


def test_R6_a_text_of_megabytes_is_looked_at_once() -> None:
    text = "so. " * 1_000_000
    assert bound(text)[0][0] is text


def test_R7_own_name_is_not_a_reference() -> None:
    planned = plan([Step("echo", "echo", ("echo", "echo.x", ["echo"]))])
    assert planned.sinks == ("echo",)
    assert planned.bind("echo", lambda step, path: pytest.fail("asked")) == (("echo", "echo.x", ["echo"]), {})
    # The longest name decides, also when it is the own one.
    assert plan([Step("a", "f"), Step("a.b", "f", ("a.b", "a.b.c", "a.x"))]).places("a.b") == {"args[2]": "a.x"}


def test_R7_an_explicit_reference_to_itself_is_a_circle() -> None:
    with pytest.raises(CycleError, match="'me' takes its own value: me -> me") as caught:
        plan([Step("me", "f", (Ref("me")["k"],))])
    assert caught.value.path == ("me", "me")


def test_R8_a_value_is_not_looked_into() -> None:
    steps = [Step("a", "f"), Step("b", "f"), Step("c", "f", ("a", ["a"]))]
    assert plan(steps).bind("c", lambda step, path: "b" if step == "a" else "wrong") == (("b", ["b"]), {})


def test_R8_a_value_used_twice_is_asked_for_once() -> None:
    asked: list[str] = []
    steps = [Step("a", "f"), Step("b", "f", ("a", ["a"], Ref("a"), "a.k", "a.k"))]
    plan(steps).bind("b", lambda step, path: asked.append(step + "".join(map(str, path))))
    assert asked == ["a", "a.k"]


def test_R9_literals_and_explicit_references() -> None:
    args, kwargs = bound(Lit("a"), [Lit("a"), Lit({"k": "a"})], Ref("a")["k"][0].field("x.y"), {Ref("b")}, k=Lit("a.b"))
    assert args == ("a", ["a", {"k": "a"}], "A['k'][0].x.y", {"B"}) and kwargs == {"k": "a.b"}


def test_R9_an_explicit_reference_to_nothing_is_refused_and_a_text_is_not() -> None:
    with pytest.raises(GraphError, match=r"step 'b' refers to 'laod', and no step is called so; did you mean 'load'\?"):
        plan([Step("load", "f"), Step("b", "f", ([Ref("laod")],))])
    assert plan([Step("load", "f"), Step("b", "f", ("laod",))]).sinks == ("load", "b")


def test_R9_a_reference_is_no_sequence() -> None:
    for wrong in (lambda: list(Ref("a")), lambda: "x" in Ref("a")):
        with pytest.raises(TypeError):
            wrong()
    assert str(Ref("a")["k"][1:2].field("x.0")) == "a['k'][slice(1, 2, None)].x.0"
    assert bound(Ref("a")[1:2])[0] == ("A[slice(1, 2, None)]",)


def test_R9_what_a_request_is_written_in_can_be_pickled() -> None:
    step = Step("b", "f", (Ref("a")["k"].field("x"), Lit("a")), {"k": 1}, {"gpu"}, timeout=2.0)
    assert pickle.loads(pickle.dumps(step)) == step
    template = plan([Step("a", "f"), step]).templates["b"]
    assert pickle.loads(pickle.dumps(template)).fill([5]) == ((5, "a"), {"k": 1})


# -- names, tuples, circles --------------------------------------------------------------------------------------------


def test_R2_steps_may_be_tuples_and_no_steps_are_no_request() -> None:
    planned = plan([
        ("a", "f"), ("b", "f", ("a",)), ("c", "f", (), {"k": "b"}), ("d", "f", [1], frozenset({"gpu"})),
        ("e", "f", (), {}, {"gpu"}), RPCCommand(name="g", fun="f", args=("e",), locs=frozenset()), ("h", "f", (), None),
    ])  # fmt: skip
    assert planned.deps["b"] == ("a",) and planned.deps["c"] == ("b",) and planned.sinks == ("c", "d", "g", "h")
    assert planned.steps["d"].locs == {"gpu"} == planned.steps["e"].locs and planned.steps["d"].kwargs is None
    empty = plan([])
    assert (empty.levels, empty.outputs) == ((), ()) and evaluate(empty) == {}
    assert repr(planned) == "<Plan [7 steps, 3 levels -> c, d, g, h]>"


def test_R10_a_name_is_any_text_and_given_once() -> None:
    assert plan([("|first", "f"), ("4th", "f"), ("with a space.", "f")]).sinks == ("|first", "4th", "with a space.")
    with pytest.raises(DuplicateStepError, match=r"two steps are called 'a': steps\[0\] and steps\[2\]"):
        plan([("a", "f"), ("b", "f"), ("a", "f")])


@pytest.mark.parametrize(
    ("step", "text"),
    [
        (("", "f"), r"steps\[0\] has '' as its name"),
        ((7, "f"), r"steps\[0\] has 7 as its name"),
        (("a", ""), r"steps\[0\] has '' as its fun"),
        (("a", len), "as its fun"),
        ("ab", r"steps\[0\] is 'ab': write Step"),
        (("a",), "write Step"),
        (("a", "f", (), {}, set(), 1), "write Step"),
        (Step("a", "f", "first"), r"step 'a' \(steps\[0\]\) has args='first': write a tuple, as args=\('first',\)"),
        (Step("a", "f", (), ["x"]), "write a dict"),
        (Step("a", "f", (), {1: 2}), "have to be texts"),
        (Step("a", "f", locs="gpu"), "write a set of names"),
        (Step("a", "f", locs=7), "write a set of names"),
        (("a", "f", (), "gpu"), "write a set of names"),
        (Step("a", "f", timeout=-1), "write seconds"),
        (Step("a", "f", timeout="1"), "write seconds"),
        (Step("a", "f", retries=-1), "write 0 or more"),
    ],
)
def test_R10_what_is_no_step_is_refused_with_its_place(step: object, text: str) -> None:
    with pytest.raises(GraphError, match=text):
        plan([step])


def test_R11_fault56_a_circle_is_told_with_its_path() -> None:
    with pytest.raises(CycleError, match=r"steps wait for each other: a -> b -> a \(") as caught:
        plan([Step("a", "f", ("b",)), Step("b", "f", ("a",))])
    assert caught.value.path == ("a", "b", "a")
    with pytest.raises(CycleError) as caught:
        plan(
            [
                ("x", "f"),
                ("in", "f", ("c.k",)),
                ("b", "f", ("a", "x")),
                ("c", "f", (), {"k": ["b"]}),
                ("a", "f", ("c",)),
            ]
        )
    assert caught.value.path == ("b", "a", "c", "b"), "without `in`, which only leads there"


def test_R13_what_comes_back_are_the_sinks_in_the_order_of_the_request() -> None:
    steps = [("a", "f"), ("b", "f", ("a",)), ("c", "f")]
    assert plan(steps).outputs == ("b", "c")
    diamond = [("d", "f", ("b", "c")), ("b", "f", ("a",)), ("c", "f", ("a",)), ("a", "f")]
    planned = plan(diamond)
    assert planned.sinks == ("d",) and planned.levels == (("a",), ("b", "c"), ("d",))
    assert planned.dependants == {"d": (), "b": ("d",), "c": ("d",), "a": ("b", "c")}


def test_R13_more_may_be_kept() -> None:
    steps = [("a", "f"), ("b", "f", ("a",)), ("c", "f")]
    assert plan(steps, keep=["a"]).outputs == plan(steps, keep="all").outputs == ("a", "b", "c")
    assert plan(steps, keep=["a"]).sinks == ("b", "c")
    assert plan([("all", "f"), ("x", "f", ("all",))], keep=["all"]).outputs == ("all", "x")
    with pytest.raises(GraphError, match="keep names 'd'"):
        plan(steps, keep=["d"])
    with pytest.raises(GraphError, match=r"""keep='a': write "all", or a list of names, as \['a'\]"""):
        plan(steps, keep="a")


def test_I16_where_each_value_goes() -> None:
    args, kwargs = ("step1", 1, [{"x": ("step0",)}], {"step1"}), {"k": [0, Lit("step1"), "step0.field"]}
    steps = [("step0", "f"), ("step1", "f"), Step("step2", "f", args, kwargs)]
    assert plan(steps).places("step2") == {
        "args[0]": "step1",
        "args[2][0]['x'][0]": "step0",
        "args[3]{'step1'}": "step1",
        "kwargs.k[2]": "step0.field",
    }


# -- fields -----------------------------------------------------------------------------------------------------------


class Model:
    """With a property that is never called in vain, a method, and something private."""

    kind = "linear"

    def __init__(self) -> None:
        self.weights = [0.5, 1.5]
        self._cache = {}

    @property
    def broken(self) -> object:
        raise RuntimeError("computed")

    def fit(self) -> None: ...


def at(value: object, text: str) -> object:
    return follow(value, Ref("x").field(text).path, "x")


def test_R6_a_field_is_a_key_else_an_index_else_an_attribute() -> None:
    value = {"average": 20.5, "keys": 1, "rows": [(1, 2), Model()], 3: "three", "3x": "x"}
    assert at(value, "average") == 20.5 and at(value, "keys") == 1
    assert (
        at(value, "rows.0.1") == 2 == at(value, "rows.-2.-1") and at(value, "3") == "three" and at(value, "3x") == "x"
    )
    assert at(value, "rows.1.weights.1") == 1.5 and at(value, "rows.1.kind") == "linear"
    assert at(Pair(1, 2), "right") == 2 and at("abc", "1") == "b"
    assert follow({("k",): [1, 2, 3]}, Ref("x")[("k",)][1:].path, "x") == [2, 3]
    assert follow(value, (), "x") is value and (Item(0), Field("a")) == Ref("x")[0].field("a").path


@pytest.mark.parametrize(
    ("value", "path", "text"),
    [
        ({"average": 1, "count": 2}, Ref("x").field("nope"),
         "x has no field 'nope': it is a dict with the keys 'average', 'count'. (It was asked for as x.nope;"),
        ({}, Ref("x").field("a"), "a dict without any key"),
        ({"a": {"b": [1, 2]}}, Ref("x").field("a.b.2"), "x.a.b has no field '2': it is a list of 2"),
        ({"a": [1]}, Ref("x")["a"]["b"], "x['a'] has no item 'b': it is a list of 1"),
        ({"a": 1}, Ref("x").field("items"), "no field 'items'"),
        (Model(), Ref("x").field("fit"), "it is a Model with 'broken', 'kind', 'weights'."),
        (Model(), Ref("x").field("_cache"), "no field '_cache'"),
        (Model(), Ref("x")["kind"], "no item 'kind'"),
        (object(), Ref("x").field("a"), "an object without any public attribute".replace("an ", "a ")),
        (dict.fromkeys(range(1000)), Ref("x").field("a"), "18, 19 and 980 more."),
    ],
)  # fmt: skip
def test_R6_a_field_that_is_not_there_is_told_with_what_is(value: object, path: Ref, text: str) -> None:
    with pytest.raises(FieldError) as caught:
        follow(value, path.path, "x")
    assert text in str(caught.value)


def test_R6_what_a_property_raises_is_the_users() -> None:
    with pytest.raises(RuntimeError, match="computed"):
        at(Model(), "broken")
