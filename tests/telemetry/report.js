// Runs a report's script on as much of a browser as it uses; says as JSON what it made. Input: the script, the facts, ids.
"use strict";
const vm = require("node:vm");

class Element {
  constructor(tag) { Object.assign(this, {tag, attributes: {}, parts: [], heard: {}, value: "0", clientWidth: 1000}); }
  setAttribute(name, value) { this.attributes[name] = String(value); }
  append(...parts) { this.parts.push(...parts.map((part) => part instanceof Element ? part : String(part))); }
  replaceChildren(...parts) { this.parts = []; this.append(...parts); }
  addEventListener(name, hears) { this.heard[name] = hears; }
  get textContent() { return this.parts.map((part) => part instanceof Element ? part.textContent : part).join(""); }
  set textContent(text) { this.replaceChildren(text); }
  all(tag) { return [...(this.tag === tag ? [this] : []), ...this.parts.flatMap((part) => part instanceof Element ? part.all(tag) : [])]; }
}

const {script, facts, ids} = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const made = [], elements = Object.fromEntries(ids.map((id) => [id, new Element(id)]));
elements.facts.append(facts);
const create = (tag) => { const element = new Element(tag); made.push(element); return element; };
const document = {getElementById: (id) => elements[id], createElement: create, createElementNS: (_, tag) => create(tag), title: ""};
vm.runInNewContext(script, {document});

const main = elements.main, titles = () => main.all("title").map((title) => title.textContent);
const told = {title: document.title, heading: elements.title.textContent, text: main.textContent, titles: titles(),
  bars: main.all("rect").filter((rect) => "class" in rect.attributes).map((rect) => rect.attributes),
  sections: main.all("h2").map((each) => each.textContent), links: main.all("a").length};
const zoom = main.all("input")[0];
if (zoom) {
  zoom.value = "1";
  zoom.heard.input();
  told.zoomed = main.all("rect").filter((rect) => "class" in rect.attributes).map((rect) => rect.attributes);
}
const boxes = () => main.all("g");
if (boxes().length) {
  told.flame = boxes().map((box) => [box.all("title")[0].textContent, box.all("rect")[0].attributes.width]);
  boxes()[1].heard.click();
  told.closer = boxes().map((box) => [box.all("title")[0].textContent, box.all("rect")[0].attributes.width]);
  boxes()[1].heard.click();
  told.back = boxes().length;
}
told.tags = [...new Set(made.map((element) => element.tag))].sort();
told.attributes = [...new Set(made.flatMap((element) => Object.keys(element.attributes)))].sort();
process.stdout.write(JSON.stringify(told));
