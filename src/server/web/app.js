/* The page of `darkroom serve`: wires form, queue and gallery together and keeps in touch with the
   server. What is shown is the server's state; only the form is kept here. */
import * as api from "./api.js";
import { announce, byId, setText } from "./dom.js";
import * as edit from "./edit.js";
import * as form from "./form.js";
import * as gallery from "./gallery.js";
import * as queue from "./queue.js";
import * as viewer from "./viewer.js";

const BUSY_MS = 1500;     /* between polls while jobs run */
const IDLE_MS = 5000;     /* while none do: other clients may add some */
const GALLERY_MS = 30000; /* results of other clients */
const RETRY_MS = [1000, 2000, 4000, 8000, 15000];

let known = false;      /* the parameters were read since the server was last away */
let failures = 0;       /* in a row */
let timer = null;
let ticking = false;
let sending = false;
let again = false;      /* something happened while the loop was reading */
let galleryDue = 0;     /* when it must be read again, ms */

/* --- what is wrong with the connection --- */

function showBanner(text, needsKey) {
  setText(byId("banner-text"), text);
  byId("banner-key").hidden = !needsKey;
  byId("banner").hidden = text === "";
}

function bannerOf(error) {
  if (error instanceof api.Unreachable) return "The server cannot be reached. Trying again.";
  if (error.status === 503 && !error.told) return "The model is loading. Trying again.";
  if (error.status === 401) return "This server wants an API key.";
  return error.message;
}

function lost(error) {
  failures += 1;
  galleryDue = 0;
  if (error instanceof api.Unreachable || error.status === 503) known = false;
  byId("generate").disabled = !known;
  showBanner(bannerOf(error), error.status === 401);
}

function found() {
  failures = 0;
  byId("generate").disabled = false;
  showBanner("", false);
}

/* --- the loop --- */

async function readParameters() {
  await api.get("health"); /* 503 while the model loads */
  const reply = await api.get("v1/parameters");
  form.setParameters(reply);
  setText(byId("model"), reply.model || "");
  known = true;
}

async function update() {
  if (!known) await readParameters();
  const ended = await queue.refresh();
  if (!ended && Date.now() < galleryDue) return;
  galleryDue = Date.now() + GALLERY_MS; /* set before reading: refreshAll() may come meanwhile */
  await gallery.refresh();
}

function nextTick() {
  if (again) return 0;
  if (failures > 0) return RETRY_MS[Math.min(failures, RETRY_MS.length) - 1];
  return queue.isEmpty() ? IDLE_MS : BUSY_MS;
}

/* One at a time; hidden pages rest. */
async function tick() {
  again = ticking;
  if (ticking || document.hidden) return;
  clearTimeout(timer);
  ticking = true;
  try {
    await update();
    found();
  } catch (error) {
    lost(error);
  }
  ticking = false;
  timer = setTimeout(tick, nextTick());
}

function refreshAll() {
  galleryDue = 0;
  tick();
}

/* --- events --- */

function ended(job) {
  if (job) {
    const what = { completed: "Finished", cancelled: "Cancelled" }[job.status] || "Failed";
    announce(`${what}: ${job.prompt}`);
  }
  refreshAll();
}

async function send(body) {
  if (form.kind() === "video") return api.post("v1/videos", body);
  const request = { ...body, async: true };
  if (!edit.active()) return api.post("v1/images/generations", request);
  return api.post("v1/images/edits", await edit.asForm(request));
}

async function submit(event) {
  event.preventDefault();
  if (sending || byId("generate").disabled) return;
  const body = form.read();
  if (!body) return;
  sending = true;
  byId("generate").setAttribute("aria-busy", "true"); /* disabled would lose the focus */
  try {
    queue.add(await send(body));
    announce(`Accepted: ${body.prompt}`);
  } catch (error) {
    form.showError(error.param, error.message);
  }
  sending = false;
  byId("generate").removeAttribute("aria-busy");
  tick();
}

/* A picture that is folded away must not be forgotten. */
function nameButton() {
  const edits = edit.active() && form.kind() === "image";
  setText(byId("generate"), edits ? "Edit the picture" : "Generate");
}

function makeAgain(job) {
  edit.clear();
  form.fill(job);
}

function editResult(file, job) {
  form.fill(job);
  edit.setFile(file);
}

/* Resolves to the key, or null when the dialog is closed without one. */
function askForKey(rejected) {
  const dialog = byId("key-dialog");
  const input = byId("key-input");
  setText(byId("key-text"), rejected ? "The server did not accept the key."
    : "This server wants an API key. It is kept until this tab is closed.");
  input.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve) => {
    dialog.addEventListener("close", () => {
      resolve(dialog.returnValue === "ok" && input.value !== "" ? input.value : null);
    }, { once: true });
  });
}

function startKeys() {
  api.onKeyNeeded(askForKey);
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("banner-key").addEventListener("click", () => { api.askAgain(); tick(); });
}

form.start();
edit.start(nameButton);
gallery.start(lost);
queue.start(ended);
viewer.start({ makeAgain, edit: editResult, deleted: gallery.forget,
  neighbour: gallery.neighbour });
startKeys();
byId("form").addEventListener("submit", submit);
byId("form").addEventListener("change", nameButton);
document.addEventListener("visibilitychange", () => {
  queue.follow();
  if (!document.hidden) refreshAll();
});
window.addEventListener("online", tick);
tick();
