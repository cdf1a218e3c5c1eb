// The page: sources of frames on the left, answers and recipes on the right.

import { centreCrop, showFrame, toFrame } from "./frame.js";
import { argmax } from "./model.js";
import {
  $, ask, bundle, current, element, forgetLatencies, inTurn, knowsLatency, page, parted, say, showAnswers, start, unpack,
} from "./page.js";

const MAX_PICTURES = 24;
const MAX_SIDE = 1600;
const STILL_BUDGET_MS = 200; // how long a still picture may be run again and again to find its median latency

const { input, labels } = bundle;
const frames = parted(unpack("uint8", bundle.golden.frames), input.width * input.height * input.channels);
const samples = bundle.golden.labels.map((label, i) => ({ kind: "sample", title: labels[label], frame: frames[i] }));

let still = null; // the sample or picture being shown
let pictures = []; // dropped or chosen ones
let stream = null; // the camera's
let facing = "environment";

// ---- classifying -------------------------------------------------------------------------------------------------

const classifyFrame = async (frame) => {
  showFrame($("frame"), frame, input);
  showAnswers(await ask(frame), labels);
};

/** Classifies the shown still, then runs it again for a while: one run says little about latency. */
const classifyStill = async () => {
  const shown = still;
  const used = current();
  if (!shown || !used) return;
  const frame =
    shown.frame ?? toFrame(shown.image, shown.image.width, shown.image.height, input, $("invert").checked);
  await classifyFrame(frame);
  const end = performance.now() + STILL_BUDGET_MS;
  while (!knowsLatency() && performance.now() < end && still === shown && current() === used) await ask(frame);
};

const classifyLive = async () => {
  const video = $("video");
  const filming = stream;
  while (stream === filming) {
    await new Promise((next) => requestAnimationFrame(next));
    if (stream !== filming || video.readyState < HTMLMediaElement.HAVE_CURRENT_DATA) continue;
    await inTurn(() =>
      stream === filming && classifyFrame(toFrame(video, video.videoWidth, video.videoHeight, input, $("invert").checked)),
    );
    if (page.state === "failed") return;
  }
};

// ---- stills: golden frames and pictures --------------------------------------------------------------------------

const showStill = (item) => {
  stopCamera();
  still = item;
  page.source = item.kind;
  forgetLatencies();
  const canvas = $("picture");
  if (item.frame) showFrame(canvas, item.frame, input);
  else {
    [canvas.width, canvas.height] = [item.image.width, item.image.height];
    canvas.getContext("2d").drawImage(item.image, 0, 0);
  }
  $("answers").ariaLive = "polite";
  showStrip();
  return inTurn(classifyStill);
};

const thumbnail = (item) => {
  const canvas = element("canvas", { ariaHidden: "true" });
  if (item.frame) showFrame(canvas, item.frame, input);
  else {
    [canvas.width, canvas.height] = [96, 96];
    const [x, y, w, h] = centreCrop(item.image.width, item.image.height, { width: 1, height: 1 });
    canvas.getContext("2d").drawImage(item.image, x, y, w, h, 0, 0, 96, 96);
  }
  return canvas;
};

const showStrip = () => {
  const items = pictures.length ? pictures : samples;
  $("strip-title").textContent = pictures.length ? "Your pictures" : "Samples: golden frames of the bundle";
  const { scrollLeft } = $("strip");
  $("strip").replaceChildren(
    ...items.map((item) => {
      const button = element("button", { type: "button", title: item.title }, thumbnail(item));
      if (item.frame) button.append(item.title);
      else button.ariaLabel = item.title;
      button.ariaPressed = String(item === still);
      button.onclick = () => showStill(item);
      return element("li", {}, button);
    }),
  );
  $("strip").scrollLeft = scrollLeft;
};

/** Decodes a file; photographs are made smaller at once, for a dozen of them at full size fill a phone's memory. */
const readPicture = async (file) => {
  const image = await createImageBitmap(file);
  const scale = MAX_SIDE / Math.max(image.width, image.height);
  if (scale >= 1) return image;
  const [resizeWidth, resizeHeight] = [image.width, image.height].map((side) => Math.max(1, Math.round(side * scale)));
  const smaller = await createImageBitmap(image, { resizeWidth, resizeHeight, resizeQuality: "high" });
  image.close();
  return smaller;
};

const addPictures = async (chosen) => {
  const refused = [];
  const added = [];
  for (const file of chosen) {
    try {
      added.push({ kind: "picture", title: file.name, image: await readPicture(file) });
    } catch {
      refused.push(file.name);
    }
  }
  say(refused.length ? `Not a picture this browser can read: ${refused.join(", ")}` : "");
  if (!added.length) return;
  pictures = [...added, ...pictures];
  for (const old of pictures.splice(MAX_PICTURES)) old.image.close();
  await showStill(added[0]);
};

// ---- camera ------------------------------------------------------------------------------------------------------

const CAMERA_ERRORS = {
  NotAllowedError: ["refused", "The camera was refused. Allow it in the address bar's site settings and start it again."],
  NotFoundError: ["missing", "No camera was found on this device."],
  NotReadableError: ["busy", "The camera is in use by another program, or its driver failed."],
};

const startCamera = async () => {
  $("camera").disabled = true; // a second click while the browser asks for permission would film twice
  try {
    if (!navigator.mediaDevices) throw new Error("pages get a camera only on http://localhost or https");
    const size = { width: { ideal: 1280 }, height: { ideal: 720 } };
    stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode: facing, ...size } });
  } catch (error) {
    const [state, text] = CAMERA_ERRORS[error.name] ?? ["failed", `The camera did not start: ${error.message}.`];
    page.camera = state;
    if (page.source === "camera") page.source = "none";
    say(`${text} Pictures and samples work without it.`);
    return;
  } finally {
    $("camera").disabled = false;
  }
  say("");
  still = null;
  forgetLatencies();
  page.camera = "on";
  page.source = "camera";
  $("answers").ariaLive = "off"; // thirty announcements a second help nobody
  $("camera").textContent = "Stop camera";
  $("video").srcObject = stream;
  stream.getVideoTracks()[0].onended = () => leaveCamera();
  const cameras = (await navigator.mediaDevices.enumerateDevices()).filter((d) => d.kind === "videoinput");
  $("flip").hidden = cameras.length < 2;
  showStrip();
  await $("video").play();
  classifyLive();
};

const stopCamera = () => {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  $("video").srcObject = null;
  $("flip").hidden = true;
  $("camera").textContent = "Start camera";
  if (page.camera === "on") page.camera = "off";
};

const leaveCamera = () => {
  stopCamera();
  page.source = "none";
};

// ---- start -------------------------------------------------------------------------------------------------------

const dropZone = document.documentElement;
dropZone.ondragenter = dropZone.ondragover = (event) => {
  event.preventDefault();
  event.dataTransfer.dropEffect = "copy";
  document.body.classList.add("dropping");
};
dropZone.ondragleave = (event) => event.relatedTarget || document.body.classList.remove("dropping");
dropZone.ondrop = (event) => {
  event.preventDefault();
  document.body.classList.remove("dropping");
  addPictures([...event.dataTransfer.files]);
};
$("choose").onclick = () => $("files").click();
$("files").onchange = async () => {
  await addPictures([...$("files").files]);
  $("files").value = ""; // the same picture may be chosen again
};
$("camera").onclick = () => (stream ? leaveCamera() : startCamera());
$("flip").onclick = () => {
  facing = facing === "environment" ? "user" : "environment";
  stopCamera();
  startCamera();
};
$("invert").onchange = () => inTurn(classifyStill);

const colours = input.channels === 1 ? "grey" : "RGB";
$("frame-caption").textContent = `model input ${input.width}×${input.height} ${colours}`;
$("stage").style.aspectRatio = `${input.width} / ${input.height}`;
$("invert-label").hidden = input.channels !== 1;
showStrip();
await start({
  golden: { examples: frames, same: (values, variant, i) => argmax(values) === variant.golden[i] },
  again: classifyStill,
  controls: ["camera", "choose"],
});
