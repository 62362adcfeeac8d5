// Pictures that a person gives: picked, dropped, pasted, or a sample. They are checked here as far as a
// browser can, so that nobody uploads 30 MB to hear that the limit is 20; the service checks them for good.

import { Problem, address, readSample } from "./service.js";
import { megabytes, megapixels } from "./words.js";

/**
 * Return {blob, url, name, width, height} of a file; width and height are null where the browser cannot
 * show it (HEIC). Throws a `Problem` where the service would not take it.
 */
export async function readPhoto(blob, name, config) {
  if (!blob.size) throw new Problem({ status: 400, code: "empty_upload" });
  if (blob.size > config.max_upload_bytes) {
    const detail = `It has ${megabytes(blob.size)}, the limit is ${megabytes(config.max_upload_bytes)}`;
    throw new Problem({ status: 413, code: "upload_too_large", detail });
  }
  if (blob.type && !config.accepted.includes(blob.type)) {
    const kinds = config.accepted.map((type) => type.replace("image/", "").toUpperCase()).join(", ");
    throw new Problem({ status: 415, code: "not_a_picture", detail: `It reads ${kinds}` });
  }
  const url = URL.createObjectURL(blob);
  const size = await shownSize(url);
  if (size && size.width * size.height > config.max_pixels) {
    URL.revokeObjectURL(url);
    const detail = `It has ${megapixels(size.width * size.height)}, the limit is ${megapixels(config.max_pixels)}`;
    throw new Problem({ status: 413, code: "too_many_pixels", detail });
  }
  return { blob, url, name, width: size?.width ?? null, height: size?.height ?? null };
}

async function shownSize(url) {
  const image = new Image();
  image.src = url;
  try {
    await image.decode();
  } catch {
    return null;
  }
  return { width: image.naturalWidth, height: image.naturalHeight };
}

/** Hear of each file that is picked with `input` or dropped on `zone`. */
export function onFile(input, zone, heard) {
  input.addEventListener("change", () => {
    const [file] = input.files;
    if (file) heard(file);
    input.value = ""; // so that the same file can be picked again
  });
  let inside = 0; // dragenter and dragleave come for every element within
  const mark = (change) => {
    inside = change ? inside + change : 0;
    zone.classList.toggle("over", inside > 0);
  };
  zone.addEventListener("dragenter", (event) => {
    event.preventDefault();
    mark(1);
  });
  zone.addEventListener("dragleave", () => mark(-1));
  zone.addEventListener("dragover", (event) => event.preventDefault());
  zone.addEventListener("drop", (event) => {
    event.preventDefault();
    event.stopPropagation();
    mark(0);
    const [file] = event.dataTransfer.files;
    if (file) heard(file);
  });
}

/** Hear of each picture that is pasted anywhere on the page. */
export function onPaste(heard) {
  document.addEventListener("paste", (event) => {
    const [file] = event.clipboardData.files;
    if (!file) return;
    event.preventDefault();
    heard(file);
  });
}

/** Show the samples in a list; `heard` gets the blob and the title of the one chosen. */
export function showSamples(list, samples, heard) {
  list.replaceChildren(
    ...samples.map(({ url, title }) => {
      const image = Object.assign(new Image(), { src: address(url), alt: title, loading: "lazy", width: 72, height: 72 });
      const button = Object.assign(document.createElement("button"), { type: "button", title });
      button.append(image);
      button.addEventListener("click", () => heard(readSample(url), title));
      const item = document.createElement("li");
      item.append(button);
      return item;
    }),
  );
}
