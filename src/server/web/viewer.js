/* The dialog of one job: its pictures or video, its recipe, and what can be done with it. */
import * as api from "./api.js";
import { byId, dateTime, duration, element, label, words } from "./dom.js";

const dialog = byId("viewer");
const calm = matchMedia("(prefers-reduced-motion: reduce)");
let urls = [];        /* to release when the dialog shows something else */
let actions = {};     /* {makeAgain(job), edit(file), deleted(job), neighbour(job, by)} */
let shown = null;

/* --- what it made --- */

async function mediaUrl(path) {
  const url = await api.media(path);
  urls.push(url);
  return url;
}

function player(job, url) {
  const output = job.outputs[0];
  if (job.object === "image" || output?.format === "gif") {
    return element("img", { class: "result", alt: job.prompt, src: url });
  }
  const video = element("video", { class: "result", controls: true, loop: true, playsinline: true,
    "aria-label": job.prompt, src: url });
  video.muted = true; /* as a property: the attribute alone does not allow autoplay */
  video.autoplay = !calm.matches;
  return video;
}

async function showOutput(job, index, stage, download) {
  try {
    const url = await mediaUrl(api.contentPath(job, index));
    if (shown !== job) return;
    stage.replaceChildren(player(job, url));
    download.href = url;
    download.download = `${job.id}-${index}.${job.outputs[index]?.format || "bin"}`;
  } catch (error) {
    stage.replaceChildren(element("p", { class: "error" }, error.message));
  }
}

function outputButton(job, output, place, choose) {
  const image = element("img", { alt: "" });
  mediaUrl(api.contentPath(job, place, "thumbnail")).then((url) => { image.src = url; }, () => {});
  const title = `Output ${place + 1}, seed ${output.seed}`;
  return element("button", { type: "button", "aria-label": title, "aria-pressed": String(place === 0),
    onclick: () => choose(place) }, image);
}

/* A strip of thumbnails when there are several outputs. */
function strip(job, choose) {
  if (!(job.outputs?.length > 1)) return null;
  const node = element("div", { class: "strip" });
  const chosen = (place) => {
    [...node.children].forEach((button, at) => button.setAttribute("aria-pressed", at === place));
    choose(place);
  };
  node.append(...job.outputs.map((output, place) => outputButton(job, output, place, chosen)));
  return node;
}

/* --- recipe --- */

function facts(job) {
  const rows = [["Model", job.model], ["Size", job.size?.replace("x", " × ")]];
  if (job.object === "video" && job.seconds) rows.push(["Length", `${job.seconds} s`]);
  rows.push(["Seed", (job.seeds?.length ? job.seeds : [job.seed]).join(", ")]);
  if (job.completed_at) rows.push(["Made", dateTime(job.completed_at)]);
  if (typeof job.inference_time_s === "number") rows.push(["Took", duration(job.inference_time_s)]);
  return rows;
}

function settings(job) {
  const told = ["prompt", "seed", "width", "height", job.object === "image" ? "num_frames" : ""];
  return Object.entries(job.parameters || {})
    .filter(([name, value]) => !told.includes(name) && value !== null && value !== "")
    .map(([name, value]) => [label(name), typeof value === "object" ? JSON.stringify(value) : value]);
}

function recipe(job) {
  const row = ([name, value]) =>
    element("div", {}, element("dt", {}, name), element("dd", {}, String(value)));
  const rows = [...facts(job), ...settings(job)].filter(([, value]) => value ?? false);
  return element("dl", { class: "recipe" }, ...rows.map(row));
}

/* --- actions --- */

/* A button whose failure is told below the buttons. */
function action(text, attributes, error, act) {
  const onclick = () => act().catch((failure) => { error.textContent = failure.message; });
  return element("button", { type: "button", ...attributes, onclick }, text);
}

async function editThis(job) {
  const bytes = await api.blob(api.contentPath(job, 0));
  dialog.close();
  actions.edit(new File([bytes], job.id, { type: bytes.type }), job);
}

async function deleteThis(job) {
  await api.remove(job);
  dialog.close();
  actions.deleted(job);
}

/* Deleting asks once more, in place: there is no way back. */
function deleteButton(job, error) {
  const ask = element("button", { type: "button", class: "delete" }, "Delete");
  const keep = element("button", { type: "button", class: "keep" }, "Keep");
  const sure = action("Delete for good", { class: "primary confirm" }, error, () => deleteThis(job));
  const question = element("span", { class: "row", hidden: true }, sure, keep);
  const turn = (asked) => {
    ask.hidden = asked;
    question.hidden = !asked;
    (asked ? keep : ask).focus();
  };
  ask.addEventListener("click", () => turn(true));
  keep.addEventListener("click", () => turn(false));
  return element("span", { class: "row" }, ask, question);
}

function buttons(job, download) {
  const error = element("p", { class: "error", role: "alert" });
  const again = element("button", { type: "button", class: "primary again",
    onclick: () => { dialog.close(); actions.makeAgain(job); } }, "Make again");
  const editable = job.object === "image" && job.status === "completed";
  return element("div", { class: "actions" },
    element("div", { class: "row" }, again, download,
      editable ? action("Edit", { class: "edit" }, error, () => editThis(job)) : null,
      deleteButton(job, error)), error);
}

function head(job) {
  return element("div", { class: "viewer-head" },
    element("h2", { id: "viewer-title" }, job.prompt || words(job.object)),
    element("button", { type: "button", class: "close", "aria-label": "Close",
      onclick: () => dialog.close() }, "✕"));
}

function body(job) {
  const stage = element("div", { class: "stage" });
  if (job.status !== "completed") {
    stage.append(element("p", { class: "failure" }, element("b", {}, words(job.status)),
      job.error ? element("span", {}, job.error.message) : null));
    return [stage, buttons(job, null)];
  }
  const download = element("a", { class: "button download" }, "Download");
  const choose = (place) => showOutput(job, place, stage, download);
  choose(0);
  return [stage, strip(job, choose), buttons(job, download)];
}

function clear() {
  urls.forEach(api.release);
  urls = [];
  shown = null;
  dialog.replaceChildren();
}

export function open(job) {
  clear();
  shown = job;
  dialog.append(...[head(job), ...body(job), recipe(job)].filter(Boolean));
  if (!dialog.open) dialog.showModal();
  dialog.scrollTop = 0;
  dialog.querySelector(".again").focus();
}

/* Left and right show the neighbours, unless the video wants them. */
function turnPage(event) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || !shown || event.target.tagName === "VIDEO") return;
  const next = actions.neighbour(shown, by);
  if (next) open(next);
}

export function start(what) {
  actions = what;
  dialog.addEventListener("close", clear);
  dialog.addEventListener("keydown", turnPage);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
