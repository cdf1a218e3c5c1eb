// One loaded .tflite file; Python calls its signatures through `globalThis.runner` (see session.py).
//
// A tensor travels as {dtype, shape, data}, data being the base64 of its little-endian bytes.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

const ARRAYS = { float32: Float32Array, int32: Int32Array, uint8: Uint8Array };

const toBase64 = (bytes) => {
  let text = "";
  // String.fromCharCode takes its bytes as arguments, and a call has room for some ten thousand.
  for (let start = 0; start < bytes.length; start += 8192) {
    text += String.fromCharCode(...bytes.subarray(start, start + 8192));
  }
  return btoa(text);
};

const fromBase64 = (text) => Uint8Array.from(atob(text), (char) => char.charCodeAt(0));

const toTensor = ({ dtype, shape, data }) => {
  if (!(dtype in ARRAYS)) throw new Error(`LiteRT.js has no tensors of ${dtype}`);
  return new Tensor(new ARRAYS[dtype](fromBase64(data).buffer), shape);
};

const fromTensor = (tensor) => {
  const values = tensor.toTypedArray();
  return {
    dtype: tensor.type.dtype,
    shape: Array.from(tensor.type.layout.dimensions),
    data: toBase64(new Uint8Array(values.buffer, values.byteOffset, values.byteLength)),
  };
};

let model;

const details = (tensors) => tensors.map(({ name, dtype, shape }) => ({ name, dtype, shape: Array.from(shape) }));

const load = async () => {
  await loadLiteRt("/litert/wasm/");
  model = await loadAndCompile("/model.tflite", { accelerator: "wasm" });
  return Object.fromEntries(
    Object.entries(model.signatures).map(([key, runner]) => [
      key,
      { inputs: details(runner.getInputDetails()), outputs: details(runner.getOutputDetails()) },
    ]),
  );
};

const run = async (signature, inputs) => {
  const tensors = {};
  let outputs = {};
  try {
    for (const [name, value] of Object.entries(inputs)) tensors[name] = toTensor(value);
    outputs = await model.run(signature, tensors);
    return Object.fromEntries(Object.entries(outputs).map(([name, tensor]) => [name, fromTensor(tensor)]));
  } finally {
    // WebAssembly memory is not garbage collected.
    for (const tensor of [...Object.values(tensors), ...Object.values(outputs)]) tensor.delete();
  }
};

globalThis.runner = { load, run };
