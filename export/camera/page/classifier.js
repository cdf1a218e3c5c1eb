// One .tflite file at a time in LiteRT.js: WebAssembly on the CPU, one thread.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

let runtime;

/** Compiles the file of `variant`; `classify` then returns probabilities in label order and the milliseconds. */
export const openClassifier = async (variant, input) => {
  runtime ??= loadLiteRt("/litert/wasm/");
  await runtime;
  const model = await loadAndCompile(variant.url, { accelerator: "wasm" });
  const shape = [1, input.height, input.width, input.channels];
  const { name, scale, zeroPoint } = variant.output;

  const classify = async (frame) => {
    const start = performance.now();
    const tensor = new Tensor(frame, shape);
    let outputs = {};
    try {
      outputs = await model.run(variant.signature, { [input.name]: tensor });
      const stored = Array.from(outputs[name].toTypedArray());
      const probabilities = scale ? stored.map((value) => (value - zeroPoint) * scale) : stored;
      return { probabilities, milliseconds: performance.now() - start };
    } finally {
      // WebAssembly memory is not garbage collected.
      for (const used of [tensor, ...Object.values(outputs)]) used.delete();
    }
  };

  return { classify, close: () => model.delete() };
};

/** Returns the index of the largest value, the first one of equals, as `numpy.argmax` does. */
export const argmax = (values) => values.indexOf(Math.max(...values));
