"""joblib and scikit-learn on the cluster (core-api row 52). Its own tests: `make guests`."""

from __future__ import annotations

import pytest

joblib = pytest.importorskip("joblib", reason="joblib is not installed: pip install 'zmreg[joblib]'")

import numpy as np  # noqa: E402

from zmreg.integrations import joblib as guest  # noqa: E402

pytestmark = pytest.mark.usefixtures("cluster")


@pytest.fixture(autouse=True)
def registered():
    guest.register()
    with joblib.parallel_config("zmreg"):
        yield


def test_row52_values_in_order_and_the_very_exception():
    assert joblib.Parallel()(joblib.delayed(lambda x: x * x)(n) for n in range(200)) == [n * n for n in range(200)]
    with pytest.raises(ZeroDivisionError):
        joblib.Parallel()(joblib.delayed(divmod)(1, n) for n in (1, 0))


def test_row52_n_jobs_is_counted_in_the_clusters_cpus():
    assert joblib.effective_n_jobs(-1) == 2 and joblib.effective_n_jobs(1) == 1
    with pytest.raises(ValueError, match="n_jobs"):
        joblib.Parallel(n_jobs=0)(joblib.delayed(abs)(n) for n in range(3))


def test_X2_a_large_array_is_sent_once_and_shared():
    array = np.arange(300_000.0)
    found = joblib.Parallel()(joblib.delayed(_seen)(array, other=array) for _ in range(10))
    assert {(total, writeable) for total, writeable, _ in found} == {(2 * array.sum(), False)}
    assert all(same for _, _, same in found)


def _seen(array, other):
    return array.sum() + other.sum(), array.flags.writeable, array is other


def test_row52_a_parallel_in_a_parallel_ends():
    def inner(n):
        return sum(joblib.Parallel(n_jobs=2, backend="zmreg")(joblib.delayed(abs)(k) for k in range(n)))

    assert joblib.Parallel()(joblib.delayed(inner)(n) for n in range(6)) == [sum(range(n)) for n in range(6)]


def test_row52_a_grid_search_gives_what_it_gives_without_us():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed: pip install scikit-learn")
    from sklearn.datasets import load_digits
    from sklearn.model_selection import GridSearchCV
    from sklearn.svm import SVC

    digits = load_digits()
    grid = GridSearchCV(SVC(), {"C": [1, 10]}, cv=2)
    here = grid.fit(digits.data[:300], digits.target[:300]).cv_results_["mean_test_score"]
    with joblib.parallel_config("zmreg", n_jobs=2):
        there = grid.fit(digits.data[:300], digits.target[:300]).cv_results_["mean_test_score"]
    assert (here == there).all()
