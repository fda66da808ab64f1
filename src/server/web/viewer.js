/* The dialog of one job: its pictures or video, its recipe, and what can be done with it. */
import * as api from "./api.js";
import { byId, dateTime, duration, element, fileSize, label, words } from "./dom.js";

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
  return element("button", { type: "button", "aria-label": `Output ${place + 1}, seed ${output.seed}`,
    "aria-pressed": String(place === 0), onclick: () => choose(place) }, image);
}

/* A strip of thumbnails when there are several outputs. */
function strip(job, choose) {
  if (!(job.outputs?.length > 1)) return null;
  const node = element("div", { class: "strip" });
  const chosen = (place) => {
    [...node.children].forEach((button, at) => button.setAttribute("aria-pressed", String(at === place)));
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
  const bytes = job.outputs?.[0]?.bytes;
  if (bytes) rows.push(["File", `${job.outputs[0].format}, ${fileSize(bytes)}`]);
  return rows;
}

function settings(job) {
  const told = ["prompt", "seed", "width", "height", job.object === "image" ? "num_frames" : ""];
  return Object.entries(job.parameters || {})
    .filter(([name, value]) => !told.includes(name) && value !== null && value !== "")
    .map(([name, value]) => [label(name), typeof value === "object" ? JSON.stringify(value) : String(value)]);
}

function recipe(job) {
  const rows = [...facts(job), ...settings(job)].filter(([, value]) => value);
  return element("dl", { class: "recipe" },
    ...rows.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));
}

/* --- actions --- */

async function editThis(job, error) {
  try {
    const bytes = await api.blob(api.contentPath(job, 0));
    dialog.close();
    actions.edit(new File([bytes], `${job.id}.png`, { type: bytes.type }), job);
  } catch (failure) {
    error.textContent = failure.message;
  }
}

async function deleteThis(job, error) {
  try {
    await api.remove(job);
    dialog.close();
    actions.deleted(job);
  } catch (failure) {
    error.textContent = failure.message;
  }
}

/* Deleting asks once more, in place: there is no way back. */
function deleteButton(job, error) {
  const ask = element("button", { type: "button", class: "delete" }, "Delete");
  const keep = element("button", { type: "button", class: "keep" }, "Keep");
  const sure = element("button", { type: "button", class: "danger confirm", onclick: () => deleteThis(job, error) },
    "Delete for good");
  const question = element("span", { class: "row", hidden: true }, sure, keep);
  ask.addEventListener("click", () => { ask.hidden = true; question.hidden = false; keep.focus(); });
  keep.addEventListener("click", () => { ask.hidden = false; question.hidden = true; ask.focus(); });
  return element("span", { class: "row" }, ask, question);
}

function buttons(job, download) {
  const error = element("p", { class: "error", role: "alert" });
  const again = element("button", { type: "button", class: "primary again",
    onclick: () => { dialog.close(); actions.makeAgain(job); } }, "Make again");
  const editable = job.object === "image" && job.status === "completed";
  return element("div", { class: "actions" },
    element("div", { class: "row" }, again, download,
      editable ? element("button", { type: "button", onclick: () => editThis(job, error) }, "Edit") : null,
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

/* Left and right turn the pages, unless the video wants them. */
function turn(event) {
  const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
  if (!by || !shown || event.target.tagName === "VIDEO") return;
  const next = actions.neighbour(shown, by);
  if (next) open(next);
}

export function start(what) {
  actions = what;
  dialog.addEventListener("close", clear);
  dialog.addEventListener("keydown", turn);
  dialog.addEventListener("click", (event) => { if (event.target === dialog) dialog.close(); });
}
