// Text → tokens of the model's vocabulary, and back; suggestions by going on with the likeliest token.

import { argmax, best } from "./model.js";

const LINE_FEED = "\\n"; // as the vocabulary file writes it
const MOST_CHARACTERS = 14; // of a suggestion

const spelt = (token) => (token === LINE_FEED ? "\n" : token);

/** Returns how a token is shown. */
export const shown = (token) => ({ "\n": "line end", " ": "space" })[token] ?? token;

export const openVocabulary = ({ tokens, of, unknown }) => {
  const texts = tokens.map((token, i) => (i === unknown ? "" : spelt(token)));
  const numbers = new Map(texts.map((text, i) => [text, i]).filter(([text]) => text));
  const split = of === "characters" ? (text) => [...text] : (text) => text.match(/[\p{L}\p{N}']+|[^\s\p{L}\p{N}]/gu) ?? [];
  const numberOf = (token) => numbers.get(token) ?? numbers.get(token.toLowerCase()) ?? unknown;
  return {
    texts,
    unknown,
    characters: of === "characters",
    encode: (text) => split(text).map((token) => (of === "characters" ? (numbers.get(token) ?? unknown) : numberOf(token))),
    decode: (numbered) => numbered.map((i) => texts[i]).join(of === "characters" ? "" : " "),
  };
};

/**
 * Returns what the model is given: the last `steps` tokens from the left, zeros behind them, and the place of the last.
 *
 * A model of sequences answers at every step what follows the tokens up to there, so zeros behind change nothing.
 */
export const windowOf = (tokens, steps) => {
  const kept = tokens.slice(-steps);
  const example = new Int32Array(steps);
  example.set(kept);
  return { example, last: kept.length - 1 };
};

/** Returns the probabilities of the next token after `tokens`; `ask` runs the model. */
export const nextAfter = async (tokens, steps, ask) => {
  const { example, last } = windowOf(tokens, steps);
  const values = await ask(example);
  const width = values.length / steps;
  return values.slice(last * width, (last + 1) * width);
};

const isLetter = (text) => /^[\p{L}\p{N}']$/u.test(text);

/**
 * Returns three ways to go on: of words the three likeliest; of characters the three likeliest ones, each with the
 * likeliest after it until a word is at its end.
 */
export const suggest = async (first, tokens, vocabulary, steps, ask) => {
  const { texts, unknown } = vocabulary;
  const known = first.map((value, i) => (i === unknown ? -1 : value));
  if (!vocabulary.characters) return best(known, 3).map((i) => texts[i]);
  const found = [];
  for (const begin of best(known, 3)) {
    const added = [begin];
    while (added.length < MOST_CHARACTERS) {
      const next = argmax(await nextAfter([...tokens, ...added], steps, ask));
      const within = isLetter(texts[added.at(-1)]);
      const twice = /^\s$/.test(texts[next]) && /^\s$/.test(texts[added.at(-1)]);
      if (next === unknown || twice || (within && !isLetter(texts[next]))) break;
      added.push(next);
    }
    found.push(added.map((i) => texts[i]).join(""));
  }
  return found;
};
