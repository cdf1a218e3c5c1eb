// Pictures of any size → the uint8 frame the model takes.

// The grey of `PIL.Image.convert("L")`: ITU-R 601-2 luma in 16-bit fixed point, as training data was made.
const grey = (r, g, b) => (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16;

const canvasOf = (width, height) => Object.assign(document.createElement("canvas"), { width, height });

/** Returns the largest centred part of a picture that has the model's aspect ratio: [x, y, width, height]. */
export const centreCrop = (width, height, input) => {
  const scale = Math.min(width / input.width, height / input.height);
  const [w, h] = [input.width * scale, input.height * scale];
  return [(width - w) / 2, (height - h) / 2, w, h];
};

/**
 * Scales the centre of `source` to the model's input.
 *
 * Halving step by step averages all pixels; one jump from 1080 to 28 would skip most of them in some browsers.
 */
const scaleTo = (source, width, height, input) => {
  const [x, y, w, h] = centreCrop(width, height, input);
  let [nowWidth, nowHeight] = [Math.max(1, Math.round(w)), Math.max(1, Math.round(h))];
  let current = canvasOf(nowWidth, nowHeight);
  const context = current.getContext("2d");
  context.fillStyle = "#fff"; // transparent pictures lie on paper
  context.fillRect(0, 0, nowWidth, nowHeight);
  context.drawImage(source, x, y, w, h, 0, 0, nowWidth, nowHeight);
  while (nowWidth !== input.width || nowHeight !== input.height) {
    const nextWidth = Math.max(input.width, Math.ceil(nowWidth / 2));
    const nextHeight = Math.max(input.height, Math.ceil(nowHeight / 2));
    const next = canvasOf(nextWidth, nextHeight);
    const pen = next.getContext("2d");
    pen.imageSmoothingQuality = "high";
    pen.drawImage(current, 0, 0, nowWidth, nowHeight, 0, 0, nextWidth, nextHeight);
    [current, nowWidth, nowHeight] = [next, nextWidth, nextHeight];
  }
  return current.getContext("2d").getImageData(0, 0, input.width, input.height).data;
};

/** Returns the frame, uint8[height * width * channels], of a drawable `source` of the given size. */
export const toFrame = (source, width, height, input, swapLightAndDark) => {
  const rgba = scaleTo(source, width, height, input);
  const pixels = input.width * input.height;
  const frame = new Uint8Array(pixels * input.channels);
  for (let i = 0; i < pixels; i++) {
    const [r, g, b] = [rgba[4 * i], rgba[4 * i + 1], rgba[4 * i + 2]];
    if (input.channels === 1) frame[i] = grey(r, g, b);
    else frame.set([r, g, b], 3 * i);
  }
  return swapLightAndDark ? frame.map((value) => 255 - value) : frame;
};

/** Shows a frame on `canvas` pixel by pixel. */
export const showFrame = (canvas, frame, input) => {
  canvas.width = input.width;
  canvas.height = input.height;
  const image = new ImageData(input.width, input.height);
  for (let i = 0; i < input.width * input.height; i++) {
    const at = i * input.channels;
    const rgb = input.channels === 1 ? [frame[at], frame[at], frame[at]] : frame.subarray(at, at + 3);
    image.data.set([...rgb, 255], 4 * i);
  }
  canvas.getContext("2d").putImageData(image, 0, 0);
};
