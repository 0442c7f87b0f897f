// Runs the dashboard's script on as much of a browser as it uses; says as JSON what it did. Input: the script, and
// what is answered. Elements are as browsers have them, for what is called here and nothing else.
"use strict";
const vm = require("node:vm");

class Element {
  constructor(tag) { Object.assign(this, {tagName: tag.toUpperCase(), attributes: {}, parts: [], heard: {}, parentNode: null,
    hidden: false, value: ""}); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  getAttribute(name) { return this.attributes[name] ?? null; }
  removeAttribute(name) { delete this.attributes[name]; }
  get children() { return this.parts.filter((part) => part instanceof Element); }
  get textContent() { return this.parts.map((part) => part instanceof Element ? part.textContent : part).join(""); }
  set textContent(text) { this.replaceChildren(text); }
  adopt(part) { if (part instanceof Element) { part.remove(); part.parentNode = this; return part; } return String(part); }
  append(...parts) { for (const part of parts) this.parts.push(this.adopt(part)); }
  replaceChildren(...parts) { for (const part of this.children) part.parentNode = null; this.parts = []; this.append(...parts); }
  insertBefore(part, before) {
    part = this.adopt(part);
    const at = before ? this.parts.indexOf(before) : this.parts.length;
    if (at < 0) throw new Error("NotFoundError: no child before which it could stand");
    this.parts.splice(at, 0, part);
  }
  remove() { if (this.parentNode) this.parentNode.parts = this.parentNode.parts.filter((part) => part !== this);
    this.parentNode = null; }
  addEventListener(name, hears) { (this.heard[name] ||= []).push(hears); }
  fire(name, event) { for (const hears of this.heard[name] || []) hears(event || {}); }
  showModal() { this.open = true; }
  close() { this.open = false; this.fire("close"); }
  find(test) { return [...(test(this) ? [this] : []), ...this.children.flatMap((child) => child.find(test))]; }
}

function browser(script, ids, hash, kept) {
  const made = [], asked = [], timers = new Map(), moved = [];
  const elements = Object.fromEntries(ids.map(([id, tag]) => [id, new Element(tag)]));
  const create = (tag) => { const element = new Element(tag); made.push(element); return element; };
  const document = {getElementById: (id) => elements[id], createElement: create, createElementNS: (_, tag) => create(tag),
    title: "", hidden: false, heard: {}, addEventListener: Element.prototype.addEventListener, fire: Element.prototype.fire};
  const window = {heard: {}, addEventListener: Element.prototype.addEventListener, fire: Element.prototype.fire};
  const store = new Map(Object.entries(kept || {}));
  const page = {elements, made, asked, document, window, moved, store, timers, answers: () => { throw new TypeError("down"); }};
  const location = {hash, pathname: "/"};
  page.location = location;
  let number = 0;
  const world = {document, window, location, console, URLSearchParams, AbortController, Date, Math, JSON, Map,
    history: {replaceState: (_, __, place) => { moved.push(place); location.hash = ""; }},
    sessionStorage: {getItem: (name) => store.get(name) ?? null, setItem: (name, text) => store.set(name, text),
      removeItem: (name) => store.delete(name)},
    setTimeout: (run, ms) => { timers.set(++number, [run, ms]); return number; }, clearTimeout: (id) => timers.delete(id),
    fetch: async (url, options) => {
      asked.push([url, options.headers.Authorization]);
      const [status, told] = page.answers(url);
      return {status, headers: {get: () => "application/json; charset=utf-8"}, json: async () => JSON.parse(JSON.stringify(told))};
    }};
  page.start = async () => { vm.runInNewContext(script, world); await page.settle(); };
  page.settle = async () => { for (let turn = 0; turn < 20; turn++) await new Promise((done) => setImmediate(done)); };
  page.tick = async () => { // what waits for the next round, and nobody's patience
    for (const [id, [run, ms]] of [...timers]) if (ms <= 2000) { timers.delete(id); run(); }
    await page.settle();
  };
  page.go = async (name) => { location.hash = `#${name}`; window.fire("hashchange"); await page.settle(); };
  page.text = (id) => elements[id].textContent;
  page.bad = () => "data-bad" in elements.state.attributes;
  page.rounds = () => [...timers.values()].filter(([, ms]) => ms === 2000).length;
  return page;
}

async function main(input) {
  const {script, ids, documents} = input, told = {};
  const page = browser(script, ids, "#token=a-secret", {});
  const name = (url) => url.replace(/^api\//, "").replace(/\?.*/, "");
  page.answers = (url) => [200, documents[name(url)]];
  await page.start();
  told.first = {asked: [...page.asked], moved: page.moved, kept: page.store.get("zmreg-dashboard-token"),
    state: page.text("state"), bad: page.bad(), main: page.text("main"), rounds: page.rounds(), title: page.document.title};

  told.pages = {};
  for (const link of page.elements.nav.children) {
    const view = link.getAttribute("href").slice(1);
    await page.go(view);
    told.pages[view] = {text: page.text("main"), current: page.elements.nav.find((each) => each.getAttribute("aria-current"))
      .map((each) => each.textContent), rounds: page.rounds()};
  }

  await page.go("actors");
  const buttons = () => page.elements.main.find((each) => each.tagName === "BUTTON");
  const before = buttons()[0];
  await page.tick();
  told.same = before === buttons()[0] && buttons().length > 0;
  before.fire("click");
  await page.settle();
  told.dialog = {open: page.elements.dialog.open, asked: page.asked.at(-1), text: page.text("dialog-body"), rounds: page.rounds()};
  await page.tick();
  told.dialogAgain = page.asked.at(-1)[0];
  page.elements.close.fire("click");
  await page.settle();
  told.closed = page.asked.at(-1)[0];

  page.elements.filter.value = "a&b <c>";
  page.elements.filter.fire("input");
  await page.tick();
  told.filtered = page.asked.at(-1)[0];
  page.elements.filter.value = "";

  const there = documents.actors.State;
  documents.actors.State = {...there, Answers: false, Trouble: "node A <b>is gone</b>"};
  documents.actors.Actors = {Rows: [], Total: 0, More: 0};
  await page.tick();
  told.lost = {state: page.text("state"), bad: page.bad(), main: page.text("main")};
  documents.actors.State = there;
  await page.tick();
  told.back = {bad: page.bad(), main: page.text("main")};

  page.answers = () => { throw new TypeError("Failed to fetch"); };
  await page.tick();
  told.down = {state: page.text("state"), bad: page.bad(), rounds: page.rounds()};
  page.document.hidden = true;
  await page.tick();
  told.hidden = page.rounds();
  page.document.hidden = false;
  page.answers = () => [401, {}];
  page.document.fire("visibilitychange");
  await page.settle();
  told.refused = {kept: page.store.has("zmreg-dashboard-token"), main: page.text("main"), rounds: page.rounds()};

  page.answers = (url) => [200, documents[name(url)]];
  const [field] = page.elements.main.find((each) => each.tagName === "INPUT");
  field.value = "http://127.0.0.1:1/#token=another";
  field.fire("keydown", {key: "Enter"});
  await page.settle();
  told.again = page.asked.at(-1);
  told.made = [...new Set(page.made.map((each) => each.tagName))].sort();
  told.attributes = [...new Set(page.made.flatMap((each) => Object.keys(each.attributes)))].sort();
  told.links = [...new Set(page.made.map((each) => each.getAttribute("href")).filter(Boolean))];
  told.paths = page.made.filter((each) => each.tagName === "PATH").map((each) => each.getAttribute("d"));
  process.stdout.write(JSON.stringify(told));
}

let text = "";
process.stdin.on("data", (data) => { text += data; }).on("end", () => main(JSON.parse(text)));
