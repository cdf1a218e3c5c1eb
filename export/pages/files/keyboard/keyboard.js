// The page: text on the left with three suggestions below it, what comes next and recipes on the right.

import { $, ask, bundle, closeToPython, element, inTurn, page, parted, say, showAnswers, start, unpack } from "./page.js";
import { nextAfter, openVocabulary, shown, suggest } from "./text.js";

const LINES = 6;

const [steps] = bundle.input.shape;
const vocabulary = openVocabulary(bundle.vocabulary);
const names = vocabulary.texts.map((text, i) => (i === vocabulary.unknown ? "anything else" : shown(text)));
const examples = parted(unpack("int32", bundle.golden.examples), steps);
const text = $("text");
let asked = 0; // what was typed last wins

const showSuggestions = (found) => {
  $("suggestions").replaceChildren(
    ...found.map((added) => {
      const button = element("button", { type: "button", textContent: added.replaceAll("\n", "⏎").replace(/^ | $/g, "␣") });
      button.value = added;
      button.ariaLabel = `Go on with ${[...added].map(shown).join("")}`;
      button.onclick = () => {
        const space = vocabulary.characters || !text.value || /\s$/.test(text.value) ? "" : " ";
        text.setRangeText(space + added, text.value.length, text.value.length, "end");
        text.focus();
        text.scrollTop = text.scrollHeight;
        inTurn(goOn);
      };
      return button;
    }),
  );
  page.suggested = Number(page.suggested) + 1;
};

/** Asks what follows the text, and shows it with three ways to go on. */
const goOn = async () => {
  const mine = ++asked;
  const tokens = vocabulary.encode(text.value);
  const others = tokens.filter((token) => token === vocabulary.unknown).length;
  say(others ? `${others} of what you typed is not in the model's vocabulary; it sees a mark instead.` : "");
  if (!tokens.length) return;
  const probabilities = await nextAfter(tokens, steps, ask);
  showAnswers(probabilities, names);
  const found = await suggest(probabilities, tokens, vocabulary, steps, ask);
  if (mine === asked) showSuggestions(found);
};

// A key that is pressed while the model runs is answered with those after it.
let waiting = false;
text.oninput = () => {
  if (waiting) return;
  waiting = true;
  inTurn(async () => {
    waiting = false;
    await goOn();
  });
};

const beginnings = examples.map((example) => vocabulary.decode(Array.from(example)).trimEnd()).filter((line) => line.trim());
$("lines").replaceChildren(
  ...beginnings.slice(0, LINES).map((line) => {
    const button = element("button", { type: "button", textContent: line.replaceAll("\n", " ⏎ ") });
    button.onclick = () => {
      text.value = line;
      inTurn(goOn);
    };
    return element("li", {}, button);
  }),
);
$("window").textContent = `the model reads the last ${steps} ${bundle.vocabulary.of}`;
await start({ golden: { examples, same: closeToPython }, again: goOn, controls: [] });
