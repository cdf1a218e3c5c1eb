// The page: sources of frames on the left, answers and recipes on the right.

import { argmax, openClassifier } from "./classifier.js";
import { centreCrop, showFrame, toFrame } from "./frame.js";

const $ = (id) => document.getElementById(id);
const page = document.body.dataset;
const MEDIAN_OF = 30;
const MAX_PICTURES = 24;
const MAX_SIDE = 1600;
const STILL_BUDGET_MS = 200; // how long a still picture may be run again and again to find its median latency

const bundle = await (await fetch("/bundle.json")).json();
const { input, labels } = bundle;
const bytesOf = (base64) => Uint8Array.from(atob(base64), (char) => char.charCodeAt(0));
const frameBytes = input.width * input.height * input.channels;
const golden = bytesOf(bundle.golden.frames);
const samples = bundle.golden.labels.map((label, i) => ({
  kind: "sample",
  title: labels[label],
  frame: golden.slice(i * frameBytes, (i + 1) * frameBytes),
}));

let classifier = null; // of the chosen recipe
let still = null; // the sample or picture being shown
let pictures = []; // dropped or chosen ones
let stream = null; // the camera's
let facing = "environment";
let latencies = [];
let switching = Promise.resolve();

// ---- what the page says ------------------------------------------------------------------------------------------

const element = (tag, properties = {}, ...children) => {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
};

const say = (text) => {
  $("notice").textContent = text;
  $("notice").hidden = !text;
};

const percent = (value) => `${(100 * value).toFixed(1)} %`;

const kilobytes = (bytes) => (bytes < 999_500 ? `${(bytes / 1e3).toFixed(0)} kB` : `${(bytes / 1e6).toFixed(1)} MB`);

const showAnswers = (probabilities) => {
  const order = probabilities.map((_, i) => i).sort((a, b) => probabilities[b] - probabilities[a] || a - b);
  $("answers").replaceChildren(
    ...order.slice(0, 3).map((i) => {
      const fill = element("i");
      fill.style.width = percent(probabilities[i]).replace(" ", "");
      return element(
        "li",
        {},
        element("span", { className: "name", textContent: labels[i] }),
        element("span", { className: "share", textContent: percent(probabilities[i]) }),
        element("span", { className: "bar", ariaHidden: "true" }, fill),
      );
    }),
  );
  page.classified = Number(page.classified) + 1;
};

const showLatency = (milliseconds) => {
  latencies = [...latencies, milliseconds].slice(-MEDIAN_OF);
  const median = latencies.toSorted((a, b) => a - b)[Math.floor(latencies.length / 2)];
  $("latency").textContent = `${median < 10 ? median.toFixed(2) : median.toFixed(0)} ms`;
  $("runs").textContent = latencies.length === 1 ? "one run" : `median of ${latencies.length}`;
};

const fail = (error) => {
  page.state = "failed";
  say(`This browser cannot run the model: ${error?.message ?? error}`);
};

// ---- classifying -------------------------------------------------------------------------------------------------

const classifyFrame = async (frame) => {
  showFrame($("frame"), frame, input);
  const { probabilities, milliseconds } = await classifier.classify(frame);
  showLatency(milliseconds);
  showAnswers(probabilities);
};

/** Classifies the shown still, then runs it again for a while: one run says little about latency. */
const classifyStill = async () => {
  const shown = still;
  const used = classifier;
  if (!shown || !used) return;
  const frame =
    shown.frame ?? toFrame(shown.image, shown.image.width, shown.image.height, input, $("invert").checked);
  await classifyFrame(frame);
  const end = performance.now() + STILL_BUDGET_MS;
  while (latencies.length < MEDIAN_OF && performance.now() < end && still === shown && classifier === used) {
    showLatency((await used.classify(frame)).milliseconds);
  }
};

/** One thing at a time: a recipe that is being closed must not be running a frame. */
const inTurn = (work) => (switching = switching.then(work).catch(fail));

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
  latencies = [];
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
  latencies = [];
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

// ---- recipes -----------------------------------------------------------------------------------------------------

/** Replays the bundle's golden frames: the same first class as Python found when it was exported? */
const checkGolden = async (variant) => {
  let same = 0;
  for (const [i, sample] of samples.entries()) {
    const { probabilities } = await classifier.classify(sample.frame);
    same += argmax(probabilities) === variant.golden[i];
  }
  $("check").textContent = `${same} of ${samples.length}`;
  $("check").className = same === samples.length ? "good" : "bad";
};

const useRecipe = (variant) =>
  inTurn(async () => {
    if (page.state === "failed") say("");
    page.state = "loading";
    const next = await openClassifier(variant, input);
    classifier?.close();
    classifier = next;
    latencies = [];
    await checkGolden(variant);
    await classifyStill();
    page.recipe = variant.recipe;
    page.state = "ready";
  });

const showRecipes = (chosen) => {
  $("held-out").textContent = `accuracy on ${bundle.heldOut} held-out examples, file size`;
  for (const variant of bundle.variants) {
    const radio = element("input", { type: "radio", name: "recipe", value: variant.recipe });
    radio.checked = variant === chosen;
    radio.onchange = () => useRecipe(variant);
    $("recipes").append(
      element(
        "label",
        {},
        radio,
        element("span", { className: "title", textContent: variant.recipe }),
        element("span", { className: "accuracy", textContent: percent(variant.accuracy) }),
        element("span", { className: "size", textContent: kilobytes(variant.bytes) }),
        element("span", { className: "more", textContent: variant.suits }),
      ),
    );
  }
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
$("about").textContent = `Bundle ${bundle.name}, weights ${bundle.weights.slice(0, 12)}, checked before it was served. `
  + "LiteRT.js on the CPU; its latency here says nothing about a phone.";
document.title = `${bundle.name} · fl-mobile camera`;
const wanted = new URLSearchParams(location.search).get("recipe");
const first = bundle.variants.find((variant) => variant.recipe === wanted) ?? bundle.variants[0];
showRecipes(first);
showStrip();
await useRecipe(first);
if (page.state === "ready") {
  $("recipes").disabled = $("camera").disabled = $("choose").disabled = false;
}
