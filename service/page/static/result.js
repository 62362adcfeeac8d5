// What became of a photo: its warnings, and each face with its crops, distance and warnings.

import { drawFace, loaded } from "./crop.js";
import { look, showBoxes } from "./stage.js";
import { decimal, plural, sentence } from "./words.js";

const byId = (id) => document.getElementById(id);
const STATUS = { replaced: "Replaced", redacted: "Covered" };

let shown = null;

const element = (tag, className, text = "") => Object.assign(document.createElement(tag), { className, textContent: text });

/** Show the result of a run, with warnings but those `said` already; nothing where it has none. `useSeed` hears
 * of a seed to use again. */
export async function showResult(run, said, useSeed) {
  const has = Boolean(run?.picture);
  byId("result").hidden = !has;
  if (!has) showBoxes(false);
  if (shown === (has ? run : null)) return;
  shown = has ? run : null;
  if (!has) return;
  const { job, photo, picture } = run;
  const { faces } = job.result;
  byId("result-title").textContent = faces.length ? plural(faces.length, "face", "faces") : "No face was found";
  byId("warnings").replaceChildren(...job.warnings.filter((words) => !said.includes(words)).map((words) => element("li", "", sentence(words))));
  byId("facts").textContent = facts(job);
  const cards = faces.map((face) => card(face, job, useSeed));
  byId("faces").replaceChildren(...cards);
  const [then, now] = await Promise.all([photo.width ? loaded(photo.url) : null, loaded(picture.url)]);
  cards.forEach((item, index) => {
    const [left, right] = item.querySelectorAll("canvas");
    drawFace(left, then, faces[index], job.result);
    drawFace(right, now, faces[index], job.result);
  });
}

function facts({ parameters, timings, result, model, kind }) {
  const seconds = (timings.sample_ms ?? 0) / 1000;
  return [
    kind === "anonymize" ? `d ${decimal(parameters.d)}` : "swap",
    `seed ${parameters.seed}`,
    `${plural(parameters.steps, "step", "steps")} of ${parameters.sampler}`,
    `guidance ${parameters.guidance_scale}`,
    `${result.width} × ${result.height}`,
    seconds ? `${decimal(seconds)} s` : "",
    model ? `weights “${model.name}”` : "",
    `at the service until ${new Date(result.expires_at).toLocaleTimeString(undefined, { hour: "2-digit", minute: "2-digit" })}`,
  ]
    .filter(Boolean)
    .join(" · ");
}

function card(face, job, useSeed) {
  const item = element("li", "face");
  const button = element("button", "look");
  button.type = "button";
  button.title = "Look closer";
  button.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-label", `Face ${face.index + 1}: look closer`);
  button.append(element("canvas", "crop"), element("span", "arrow", "→"), element("canvas", "crop"));
  button.addEventListener("click", () => choose(button, face, job.result));
  const words = element("div", "words");
  const title = element("p", "label", `Face ${face.index + 1}`);
  title.append(element("span", face.status === "replaced" ? "badge" : "badge warned", STATUS[face.status]));
  words.append(title);
  if (face.identity_distance !== null) {
    const distance = element("p", "distance", "Distance from the original ");
    distance.title = "An identity network's distance between the two faces: the larger, the less alike.";
    distance.append(element("b", "", decimal(face.identity_distance)));
    words.append(distance);
  }
  for (const warning of face.warnings) words.append(element("p", "wrong", sentence(warning)));
  if (face.index === 0 && face.status === "replaced") {
    const again = element("button", "plain tiny", `Use seed ${face.seed}`);
    again.type = "button";
    again.addEventListener("click", () => useSeed(face.seed));
    words.append(again);
  }
  item.append(button, words);
  return item;
}

function choose(button, face, result) {
  const chosen = button.getAttribute("aria-pressed") !== "true";
  for (const other of byId("faces").querySelectorAll(".look")) other.setAttribute("aria-pressed", "false");
  button.setAttribute("aria-pressed", chosen);
  showBoxes(true);
  look(chosen ? face : null, result);
}
