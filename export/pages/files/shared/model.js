// One .tflite file at a time in LiteRT.js: WebAssembly on the CPU, one thread.

import { loadAndCompile, loadLiteRt, Tensor } from "@litertjs/core";

let runtime;

/**
 * Compiles the file of `variant`. `run` takes the values of one example, in a typed array of the input's dtype, and
 * returns the values of the only output in their own units, and the milliseconds.
 */
export const openModel = async (variant, input) => {
  runtime ??= loadLiteRt("/litert/wasm/");
  await runtime;
  const model = await loadAndCompile(variant.url, { accelerator: "wasm" });
  const { name, scale, zeroPoint } = variant.output;

  const run = async (example) => {
    const start = performance.now();
    const tensor = new Tensor(example, [1, ...input.shape]);
    let outputs = {};
    try {
      outputs = await model.run(variant.signature, { [input.name]: tensor });
      const stored = Array.from(outputs[name].toTypedArray());
      const values = scale ? stored.map((value) => (value - zeroPoint) * scale) : stored;
      return { values, milliseconds: performance.now() - start };
    } finally {
      // WebAssembly memory is not garbage collected.
      for (const used of [tensor, ...Object.values(outputs)]) used.delete();
    }
  };

  return { run, close: () => model.delete() };
};

/** Returns the index of the largest value, the first one of equals, as `numpy.argmax` does. */
export const argmax = (values) => values.indexOf(Math.max(...values));

/** Returns the indices of the `count` largest values, the largest first. */
export const best = (values, count) =>
  values.map((_, i) => i).sort((a, b) => values[b] - values[a] || a - b).slice(0, count);
