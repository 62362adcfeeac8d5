// The stage: a photo, how far its job is, and then before and after with a slider between.

import { largest } from "./crop.js";
import { runFraction, runWords } from "./words.js";

const byId = (id) => document.getElementById(id);
const canvas = byId("canvas");
const before = byId("before");
const after = byId("after");
const slider = byId("compare");
const boxes = byId("boxes");
const ZOOMED_FACE = 0.55; // the part of the stage that a face fills when it is looked at
const MAX_ZOOM = 8;

/** Show `photo`, and `run` of it where there is one. */
export function showStage(photo, run, readiness) {
  byId("photo-picker").hidden = Boolean(photo);
  byId("view").hidden = byId("photo-bar").hidden = !photo;
  if (!photo) return;
  const { result } = run?.job ?? {};
  const picture = run?.picture;
  const [width, height] = picture ? [result.width, result.height] : [photo.width ?? 4, photo.height ?? 3];
  canvas.style.setProperty("--ratio", width / height);
  setSource(before, photo.width ? photo.url : null);
  setSource(after, picture?.url);
  byId("unseen").hidden = Boolean(photo.width || picture);
  byId("after-clip").hidden = !picture;
  byId("divider").hidden = !(picture && photo.width);
  byId("photo-name").textContent = photo.name;
  byId("result-actions").hidden = !picture;
  if (canvas.dataset.shown !== (picture?.url ?? photo.url)) {
    canvas.dataset.shown = picture?.url ?? photo.url;
    slide(begin(picture && photo.width ? largest(result) : null, result));
    look(null);
    drawBoxes(picture ? result : null);
  }
  showProgress(run, readiness);
}

function setSource(image, url) {
  if (url && image.getAttribute("src") !== url) image.src = url;
  if (!url) image.removeAttribute("src");
  image.hidden = !url;
}

function showProgress(run, readiness) {
  const active = Boolean(run?.active);
  byId("running").hidden = !active;
  canvas.classList.toggle("busy", active);
  if (!active) return;
  byId("running-words").textContent = runWords(run, readiness);
  const bar = byId("running-bar");
  const fraction = runFraction(run);
  if (fraction === null) bar.removeAttribute("value");
  else bar.value = fraction;
}

function slide(percent) {
  slider.value = percent;
  const at = Number(slider.value);
  canvas.style.setProperty("--divide", `${at}%`);
  slider.setAttribute("aria-valuetext", `${at} % before, ${100 - at} % after`);
}

/** Where the divider begins: through the middle of the face that is seen best. */
function begin(face, result) {
  if (!face) return 50;
  const middle = (face.box[0] + face.box[2] / 2) / result.width;
  return Math.min(Math.max(Math.round(middle * 100), 5), 95);
}

slider.addEventListener("input", () => slide(slider.value));

// The range input is for the keyboard; a finger or a mouse may take hold anywhere.
canvas.addEventListener("pointerdown", (event) => {
  if (byId("divider").hidden || event.button) return;
  canvas.setPointerCapture(event.pointerId);
  slideTo(event);
  slider.focus({ preventScroll: true });
  event.preventDefault();
});
canvas.addEventListener("pointermove", (event) => {
  if (canvas.hasPointerCapture(event.pointerId)) slideTo(event);
});

function slideTo({ clientX }) {
  const { left, width } = canvas.getBoundingClientRect();
  slide(Math.round(((clientX - left) / width) * 100));
}

function drawBoxes(result) {
  boxes.replaceChildren(
    ...(result?.faces ?? []).map(({ index, box: [x, y, width, height], status, warnings }) => {
      const box = document.createElement("div");
      box.className = "box";
      box.classList.toggle("warned", status !== "replaced" || warnings.length > 0);
      box.dataset.number = index + 1;
      const place = { left: x / result.width, top: y / result.height, width: width / result.width, height: height / result.height };
      for (const [side, part] of Object.entries(place)) box.style.setProperty(side, `${part * 100}%`);
      return box;
    }),
  );
}

export function showBoxes(shown) {
  boxes.hidden = !shown;
  byId("show-faces").setAttribute("aria-pressed", shown);
}

byId("show-faces").addEventListener("click", () => showBoxes(boxes.hidden));

/** Bring a face of `result` close, or the whole picture where `face` is null. */
export function look(face, result) {
  let zoom = 1;
  let [x, y] = [0.5, 0.5];
  if (face) {
    const [left, top, width, height] = face.box;
    zoom = ZOOMED_FACE / Math.max(width / result.width, height / result.height);
    zoom = Math.min(Math.max(zoom, 1), MAX_ZOOM);
    [x, y] = [(left + width / 2) / result.width, (top + height / 2) / result.height];
  }
  // the picture goes on covering the stage: its edges stay outside
  const shift = (middle) => Math.min(Math.max(0.5 - zoom * middle, 1 - zoom), 0) * 100;
  canvas.style.setProperty("--zoom", zoom);
  canvas.style.setProperty("--x", `${shift(x)}%`);
  canvas.style.setProperty("--y", `${shift(y)}%`);
  for (const box of boxes.children) box.classList.toggle("chosen", Boolean(face) && box.dataset.number === String(face.index + 1));
}
