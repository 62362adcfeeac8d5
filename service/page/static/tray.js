// The tray: rows of small pictures that fill in, each to be opened on the stage. A row is a strip of the same
// photo at several d or seeds (the paper's figures 4 and 5), or the single results one after the other.

import { drawFace, largest, loaded } from "./crop.js";
import { problemWords, runFraction } from "./words.js";

const byId = (id) => document.getElementById(id);
const rows = byId("tray-rows");
const tiles = new Map();

const element = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** Add a row for `runs` of one photo under a title; `open` hears of the run that is chosen. */
export function addRow(title, photo, runs, open) {
  const row = element("div", "row");
  row.dataset.title = title;
  row.append(element("h3", "", title), element("ul", "tiles"));
  const original = element("li", "tile original");
  const frame = element("span", "frame");
  if (photo.width) frame.append(picture(photo.url));
  original.append(frame, element("span", "caption", "original"));
  row.lastChild.append(original);
  row.photo = photo;
  rows.prepend(row);
  byId("tray").hidden = false;
  addTiles(row, runs, open);
}

/** Add one more result to the latest row where that has the same title and photo, else to a new row. */
export function addSingle(title, photo, run, open) {
  const row = rows.firstChild;
  if (row?.dataset.title === title && row.photo === photo) addTiles(row, [run], open);
  else addRow(title, photo, [run], open);
}

function addTiles(row, runs, open) {
  for (const run of runs) {
    const item = element("li", "tile");
    const button = element("button", "frame");
    button.type = "button";
    button.addEventListener("click", () => open(run));
    item.append(button, element("span", "caption", run.label));
    row.lastChild.append(item);
    tiles.set(run, item);
    run.addEventListener("change", () => show(run, item));
    show(run, item);
  }
}

const picture = (url) => Object.assign(new Image(), { src: url, alt: "" });

/** Show the face of a result that says most, or the whole picture where there is none. */
async function showPicture(frame, url, result) {
  const face = largest(result);
  if (!face) {
    frame.replaceChildren(picture(url));
    return;
  }
  const canvas = element("canvas", "");
  drawFace(canvas, await loaded(url), face, result);
  frame.replaceChildren(canvas);
}

const NOTES = { canceled: "Canceled", erased: "Erased", waiting: "" };

function show(run, item) {
  const button = item.firstChild;
  item.dataset.state = run.state;
  item.lastChild.textContent = run.label;
  if (run.picture) {
    if (item.dataset.shown !== run.picture.url) {
      item.dataset.shown = run.picture.url;
      showPicture(button, run.picture.url, run.job.result);
      const original = item.parentElement.querySelector(".original .frame");
      if (original.querySelector("img")) showPicture(original, run.photo.url, run.job.result);
    }
  } else if (run.active) {
    let bar = button.querySelector("progress");
    if (!bar) button.replaceChildren((bar = Object.assign(element("progress", ""), { max: 1 })));
    bar.setAttribute("aria-label", run.label);
    const fraction = runFraction(run);
    if (fraction === null) bar.removeAttribute("value");
    else bar.value = fraction;
  } else {
    button.replaceChildren(element("span", "note", NOTES[run.state] ?? problemWords(run.problem).title));
  }
  button.disabled = run.state === "erased";
  const state = run.picture ? "open it" : run.active ? "under way" : button.textContent;
  button.setAttribute("aria-label", `${run.label}: ${state}`);
}

/** Mark the run that is on the stage. */
export function mark(chosen) {
  for (const [run, item] of tiles) {
    if (run === chosen) item.firstChild.setAttribute("aria-current", "true");
    else item.firstChild.removeAttribute("aria-current");
  }
}
