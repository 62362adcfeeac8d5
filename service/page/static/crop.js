// Faces cut out of pictures, for the tray and the cards.

const MARGIN = 0.3; // of the box, around it
const PIXELS = 192; // of a crop's side: twice what is shown

export async function loaded(url) {
  const image = new Image();
  image.src = url;
  await image.decode();
  return image;
}

/** Draw a face of `result` as it is in `image`, which may be the photo in another size; none leaves a blank. */
export function drawFace(canvas, image, { box: [x, y, width, height] }, result) {
  canvas.width = canvas.height = PIXELS;
  if (!image) return;
  const [across, down] = [image.naturalWidth / result.width, image.naturalHeight / result.height];
  const side = Math.max(width, height) * (1 + 2 * MARGIN);
  const [left, top] = [x + (width - side) / 2, y + (height - side) / 2];
  const context = canvas.getContext("2d");
  context.imageSmoothingQuality = "high";
  context.drawImage(image, left * across, top * down, side * across, side * down, 0, 0, PIXELS, PIXELS);
}

/** The face that stands for a result, or undefined. */
export const largest = (result) =>
  result.faces.toSorted((one, other) => other.box[2] * other.box[3] - one.box[2] * one.box[3])[0];
