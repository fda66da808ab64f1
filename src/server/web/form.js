/* The form: made from the server's table of parameters, kept in localStorage. Its state is plain
   texts by name; an empty one means the model's default. */
import { byId, element, label, words } from "./dom.js";

const STORE = "darkroom-form";
const FIRST = ["width", "height", "num_inference_steps", "guidance_scale", "seed", "num_frames",
  "negative_prompt"];
const VIDEO_ONLY = ["num_frames", "fps"];
/* What has a place of its own on the page, is said in other words here, or names files. */
const NOT_FIELDS = ["prompt", "model", "size", "seconds", "strength", "image", "mask",
  "input_reference", "response_format", "stream", "partial_images", "async", "user",
  "output_compression", "initial_latents", "initial_latents_first", "dump_tensors"];
const FORMATS = { image: ["png", "jpeg", "webp"], video: ["mp4", "webm", "gif"] };
/* Names that errors may carry and the field that they mean here. */
const ALIASES = { size: "width", seconds: "num_frames", num_outputs_per_prompt: "n",
  image: "edit", mask: "edit" };

let parameters = [];
let defaults = {};
let fields = new Map(); /* name → {parameter, input} of those shown now */
let state = load();

function load() {
  const fresh = { kind: "image", prompt: "", values: {} };
  try {
    const stored = { ...fresh, ...JSON.parse(localStorage.getItem(STORE)) };
    return FORMATS[stored.kind] ? stored : fresh;
  } catch {
    return fresh;
  }
}

function save() {
  state.prompt = byId("prompt").value;
  for (const [name, { input }] of fields) state.values[name] = input.value;
  localStorage.setItem(STORE, JSON.stringify(state));
}

export const kind = () => state.kind;

/* Outputs are counted by `n` in this API, whatever the engine's own name is. */
function asPublic(parameter) {
  if (parameter.name !== "num_outputs_per_prompt") return parameter;
  return { ...parameter, name: "n", max: 10 };
}

export function setParameters(reply) {
  defaults = reply.defaults || {};
  const known = new Map(reply.parameters.map(asPublic).map((entry) => [entry.name, entry]));
  parameters = [...known.values()].filter((entry) => !NOT_FIELDS.includes(entry.name));
  render();
}

function shownFor(parameter) {
  return state.kind === "video" || !VIDEO_ONLY.includes(parameter.name);
}

function defaultText(parameter) {
  const value = defaults[parameter.name] ?? parameter.default;
  if (value === null || value === undefined || value === "") return parameter.default_text || "";
  return String(value);
}

function choices(parameter) {
  if (parameter.type === "bool") return ["true", "false"];
  if (parameter.name !== "output_format") return parameter.choices || [];
  return parameter.choices.filter((choice) => FORMATS[state.kind].includes(choice));
}

function makeSelect(parameter, attributes) {
  const standard = defaultText(parameter);
  const first = element("option", { value: "" }, standard ? `${standard} (default)` : "Default");
  const others = choices(parameter).map((choice) => element("option", { value: choice }, choice));
  return element("select", attributes, first, ...others);
}

function makeNumber(parameter, attributes) {
  return element("input", { ...attributes, type: "number", min: parameter.min, max: parameter.max,
    step: parameter.type === "int" ? 1 : "any",
    inputmode: parameter.type === "int" ? "numeric" : "decimal" });
}

function makeInput(parameter, attributes) {
  const more = { ...attributes, placeholder: defaultText(parameter), autocomplete: "off" };
  switch (parameter.type) {
  case "int":
  case "real": return makeNumber(parameter, more);
  case "choice":
  case "bool": return makeSelect(parameter, attributes);
  case "seed": return element("input", { ...more, type: "text", inputmode: "numeric" });
  default: return parameter.name === "negative_prompt"
    ? element("textarea", { ...more, rows: 2 }) : element("input", { ...more, type: "text" });
  }
}

function rollSeed(input) {
  input.value = crypto.getRandomValues(new Uint32Array(1))[0];
  input.dispatchEvent(new Event("input", { bubbles: true }));
}

function withDice(input) {
  const dice = element("button", { type: "button", class: "dice", id: "dice", title: "Another seed",
    "aria-label": "Another seed", onclick: () => rollSeed(input) }, "⚄");
  return element("div", { class: "with-button" }, input, dice);
}

function makeField(parameter) {
  const { name, help, unit } = parameter;
  const id = `p-${name}`;
  const input = makeInput(parameter, { id, name, "aria-describedby": `${id}-hint ${id}-error` });
  input.value = state.values[name] || "";
  fields.set(name, { parameter, input });
  const title = label(name);
  const said = `${title.toLowerCase()}; `; /* "width; a multiple of …" below "Width" */
  const meaning = help?.startsWith(said) ? help.slice(said.length) : help || "";
  const suffix = unit && unit.length > 1 ? ` (${unit.toLowerCase()})` : "";
  return element("div", { class: `field f-${name}` },
    element("label", { for: id }, title + suffix),
    parameter.type === "seed" ? withDice(input) : input,
    element("p", { class: "hint", id: `${id}-hint` }, words(meaning)),
    element("p", { class: "error", id: `${id}-error` }));
}

function render() {
  fields = new Map();
  const shown = parameters.filter(shownFor);
  const first = FIRST.map((name) => shown.find((entry) => entry.name === name)).filter(Boolean);
  const others = shown.filter((entry) => !FIRST.includes(entry.name));
  byId("fields").replaceChildren(...first.map(makeField));
  byId("more-fields").replaceChildren(...others.map(makeField));
  byId("more").hidden = others.length === 0;
  byId("edit").hidden = state.kind !== "image";
  byId("prompt").value = state.prompt;
  document.querySelector(`[name=kind][value=${state.kind}]`).checked = true;
}

/* --- errors, beside the field that they are about --- */

function errorNode(name) {
  return byId(`p-${name}-error`) || byId(`${name}-error`) || byId("form-error");
}

/* Shows it and moves the focus there. `param` may be null or a name the form does not have. */
export function showError(param, message) {
  const name = ALIASES[param] || param;
  const node = errorNode(name);
  node.textContent = message;
  const input = fields.get(name)?.input || (name === "prompt" ? byId("prompt") : null);
  const folded = node.closest("details");
  if (folded) folded.open = true;
  input?.setAttribute("aria-invalid", "true");
  input?.focus();
}

function clearError(input) {
  input.removeAttribute("aria-invalid");
  errorNode(input.name || input.id).textContent = "";
}

export function clearErrors() {
  for (const node of document.querySelectorAll("#form .error")) node.textContent = "";
  document.querySelectorAll("[aria-invalid]").forEach((node) => node.removeAttribute("aria-invalid"));
}

/* --- values --- */

function range({ min, max, type }) {
  const what = type === "int" ? "a whole number" : "a number";
  return `Expected ${what} from ${min} to ${max}.`;
}

/* Seeds reach to 2^64 - 1: what a JSON number cannot hold goes as text. */
function seedValue(text) {
  const seeds = text.split(/[\s,]+/).filter(Boolean);
  if (!seeds.every((seed) => /^\d{1,20}$/.test(seed))) {
    throw new Error("Expected a whole number, or several with commas between them.");
  }
  const numbers = seeds.map((seed) => (Number.isSafeInteger(Number(seed)) ? Number(seed) : seed));
  return numbers.length === 1 ? numbers[0] : numbers;
}

function fieldValue({ parameter, input }) {
  const text = input.value.trim();
  if (input.validity.badInput) throw new Error(range(parameter));
  if (text === "") return undefined;
  if (parameter.type === "seed") return seedValue(text);
  if (parameter.type === "bool") return text === "true";
  if (parameter.type !== "int" && parameter.type !== "real") return text;
  if (!input.validity.valid) throw new Error(range(parameter));
  return Number(text);
}

/* The request, or null when something in it is wrong, which is then shown. */
export function read() {
  clearErrors();
  const body = { prompt: byId("prompt").value.trim() };
  if (body.prompt === "") {
    showError("prompt", "Say what you want to see.");
    return null;
  }
  let sound = true;
  for (const [name, field] of fields) {
    try {
      body[name] = fieldValue(field);
    } catch (error) {
      if (sound) showError(name, error.message);
      sound = false;
    }
  }
  return sound ? body : null;
}

/* A job's parameters into the form: "make again". */
export function fill(job) {
  const from = { ...job.parameters };
  if (from.num_outputs_per_prompt) from.n = from.num_outputs_per_prompt;
  if (!from.n && job.n > 1) from.n = job.n;
  state = { kind: job.object, prompt: from.prompt ?? job.prompt ?? "", values: {} };
  for (const { name } of parameters) {
    const value = from[name];
    if (value !== null && value !== undefined) state.values[name] = [value].flat().join(", ");
  }
  clearErrors();
  render();
  save();
  byId("prompt").focus();
}

export function setKind(value) {
  save();
  state.kind = value;
  render();
  save();
}

export function start() {
  render();
  const form = byId("form");
  form.addEventListener("input", (event) => {
    if (event.target.name === "kind") return;
    save();
    clearError(event.target);
  });
  form.addEventListener("change", (event) => {
    if (event.target.name === "kind") setKind(event.target.value);
  });
  form.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || !(event.ctrlKey || event.metaKey)) return;
    event.preventDefault();
    form.requestSubmit();
  });
}
