/* "Edit a picture": a picture to start from, how far to go from it, and a mask painted over it.
   The mask is painted on a canvas of at most MASK_SIDE pixels and sent in the picture's size. */
import { byId, setText } from "./dom.js";

const MASK_SIDE = 1024;
const MOVES = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

let onChange = () => {};
let file = null;
let url = null;
let painted = false;
let last = null;                /* where the stroke is, in pixels of the canvas */
let cursor = { x: 0.5, y: 0.5 }; /* of the keyboard, as part of width and height */

const picture = byId("edit-picture");
const canvas = byId("mask");
const brush = byId("brush");

export function setFile(chosen) {
  byId("edit-error").textContent = "";
  if (!chosen || !/^image\/(png|jpeg|webp)$/.test(chosen.type)) {
    if (chosen) byId("edit-error").textContent = "Expected a PNG, JPEG or WebP picture.";
    return;
  }
  file = chosen;
  if (url) URL.revokeObjectURL(url);
  url = URL.createObjectURL(chosen);
  picture.src = url;
  byId("edit").open = true;
  onChange();
}

export function clear() {
  file = null;
  painted = false;
  byId("edit-file").value = "";
  byId("edit-body").hidden = true;
  byId("drop").hidden = false;
  useMask(false);
  onChange();
}

function loaded() {
  const scale = Math.min(1, MASK_SIDE / Math.max(picture.naturalWidth, picture.naturalHeight));
  canvas.width = Math.max(1, Math.round(picture.naturalWidth * scale));
  canvas.height = Math.max(1, Math.round(picture.naturalHeight * scale));
  painted = false;
  setText(byId("edit-size"), `${picture.naturalWidth} × ${picture.naturalHeight} pixels`);
  byId("edit-body").hidden = false;
  byId("drop").hidden = true;
  useMask(false);
}

function unreadable() {
  clear();
  byId("edit-error").textContent = "This file cannot be read as a picture.";
}

/* --- the mask --- */

function useMask(on) {
  byId("mask-toggle").setAttribute("aria-pressed", String(on));
  for (const node of [canvas, byId("mask-tools"), byId("mask-clear")]) node.hidden = !on;
  brush.hidden = true;
}

const maskUsed = () => painted && !canvas.hidden;

function clearMask() {
  canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
  painted = false;
}

/* The brush is a part of the picture's longer side, in percent. */
const brushWidth = () => byId("brush-size").value / 100 * Math.max(canvas.width, canvas.height);

function strokeTo(point) {
  const context = canvas.getContext("2d");
  const from = last || point;
  context.strokeStyle = "#e8442e";
  context.lineWidth = brushWidth();
  context.lineCap = context.lineJoin = "round";
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.lineTo(point.x, point.y);
  context.stroke();
  last = point;
  painted = true;
}

function pointOf(event) {
  const box = canvas.getBoundingClientRect();
  return { x: (event.clientX - box.left) / box.width * canvas.width,
    y: (event.clientY - box.top) / box.height * canvas.height };
}

function showBrush() {
  const shown = brushWidth() * canvas.clientWidth / canvas.width;
  brush.hidden = false;
  brush.style.width = brush.style.height = `${shown}px`;
  brush.style.left = `${cursor.x * canvas.clientWidth}px`;
  brush.style.top = `${cursor.y * canvas.clientHeight}px`;
}

function paintWithKeys(event) {
  const move = MOVES[event.key];
  if (!move && event.key !== " ") return;
  event.preventDefault();
  const step = brushWidth() / 3;
  const within = (value) => Math.min(1, Math.max(0, value));
  if (move) {
    cursor = { x: within(cursor.x + move[0] * step / canvas.width),
      y: within(cursor.y + move[1] * step / canvas.height) };
  } else {
    last = null;
    strokeTo({ x: cursor.x * canvas.width, y: cursor.y * canvas.height });
  }
  showBrush();
}

function startPainting() {
  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    last = null;
    strokeTo(pointOf(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    if (event.buttons & 1) strokeTo(pointOf(event));
  });
  canvas.addEventListener("keydown", paintWithKeys);
  canvas.addEventListener("focus", () => { if (canvas.matches(":focus-visible")) showBrush(); });
  canvas.addEventListener("blur", () => { brush.hidden = true; });
  byId("mask-clear").addEventListener("click", clearMask);
  byId("mask-toggle").addEventListener("click", () => useMask(canvas.hidden));
}

/* A PNG in the picture's size, black, transparent where the picture is to change. */
function maskFile() {
  const out = document.createElement("canvas");
  out.width = picture.naturalWidth;
  out.height = picture.naturalHeight;
  const context = out.getContext("2d");
  context.fillRect(0, 0, out.width, out.height);
  context.globalCompositeOperation = "destination-out";
  context.drawImage(canvas, 0, 0, out.width, out.height);
  return new Promise((resolve) => { out.toBlob(resolve, "image/png"); });
}

/* --- what is sent --- */

export const active = () => file !== null;

/* The request as a form with the picture. */
export async function asForm(body) {
  const form = new FormData();
  for (const [name, value] of Object.entries(body)) {
    const text = Array.isArray(value) ? JSON.stringify(value) : value;
    if (value !== undefined) form.append(name, text);
  }
  form.append("strength", byId("strength").value);
  form.append("image", file, file.name);
  if (maskUsed()) form.append("mask", await maskFile(), "mask.png");
  return form;
}

function startDropping() {
  const section = byId("edit");
  const hover = (on) => section.classList.toggle("hover", on);
  section.addEventListener("dragover", (event) => { event.preventDefault(); hover(true); });
  section.addEventListener("dragleave", () => hover(false));
  section.addEventListener("drop", (event) => {
    event.preventDefault();
    hover(false);
    setFile(event.dataTransfer.files[0]);
  });
}

/* changed(): a picture came or went. */
export function start(changed) {
  onChange = changed;
  const strength = byId("strength");
  const tell = () => setText(byId("strength-value"), Number(strength.value).toFixed(2));
  strength.addEventListener("input", tell);
  tell();
  byId("edit-file").addEventListener("change", (event) => setFile(event.target.files[0]));
  byId("edit-remove").addEventListener("click", () => { clear(); byId("edit-file").focus(); });
  picture.addEventListener("load", loaded);
  picture.addEventListener("error", unreadable);
  startPainting();
  startDropping();
}
