// What runs through the model, what comes out, and how search chose.

function residual() {
  const draw = (kind, label, rows, names, parts) => {
    const points = [L.input, ...Array.from({length: (rows.length - 1) / parts.length}, (_, l) =>
      parts.map((part) => `${l + 1} ${L[part]}`)).flat()];
    return [make("h3", {}, label), lines({points, label, axis: L.norm,
      series: names.map((name, t) => ({name: `${t} ${name}`, kind, values: rows.map((row) => row[t])})),
      words: (name, i, v) => `${name} · ${points[i]}\n${short(v)}`})];
  };
  section("residual", "residual", paragraph("residual_text"),
    draw("source", L.residual_encoder, T.norms.encoder, T.source.pieces, ["self", "ff"]),
    draw("target", L.residual_decoder, T.norms.decoder, readSoFar, ["self", "cross_short", "ff"]));
}

// Buttons of pieces with a bar of their probability above each.
function rising(side, probabilities) {
  return side.pieces.map((piece, t) => {
    const bar = make("i"), p = probabilities[t];
    bar.style.height = `${100 * p}%`;
    return make("button", {"data-tip": `${piece}\n${L.probability} ${percent(p)}`},
      make("span", {class: "rise"}, bar), piece);
  });
}

function output() {
  const {candidates, log_probs: logProbs, entropy} = T.output, place = make("div");
  const probabilities = logProbs.map(Math.exp);
  const box = chooser(make("div", {class: "steps"}), rising(T.target, probabilities), (t) => {
    place.replaceChildren(
      make("p", {}, say("output_of", {step: t + 1, before: readSoFar.slice(0, t + 1).join(" ")}), make("br"),
        make("span", {class: "quiet small"}, say("output_facts", {piece: T.target.pieces[t],
          probability: percent(probabilities[t]), entropy: short(entropy[t])}))),
      bars(candidates[t].map(([name, logProb]) => [name, Math.exp(logProb), percent(Math.exp(logProb)),
        `${name}\n${L.probability} ${Math.exp(logProb).toPrecision(4)}\nlog ${short(logProb)}`])));
  });
  section("output", "output", paragraph("output_text"), box, place);
}

// A tree from left to right: leaves take a line each, a parent stands in the middle of its children.
function beam() {
  const {nodes, size} = T.beam, children = nodes.map(() => []);
  nodes.forEach((node, i) => node.parent >= 0 && children[node.parent].push(i));
  const depth = nodes.map(() => 0), line = nodes.map(() => 0), widest = [];
  let next = 0;
  const settle = (i, at) => {
    depth[i] = at;
    widest[at] = Math.max(widest[at] ?? 0, wide(clip(nodes[i].piece, 12)));
    children[i].forEach((child) => settle(child, at + 1));
    const lines = children[i].map((child) => line[child]);
    line[i] = lines.length ? (lines[0] + lines[lines.length - 1]) / 2 : next++;
  };
  settle(0, 0);
  const columns = [16];
  widest.forEach((w, d) => columns.push(columns[d] + w + 46));
  const x = (i) => columns[depth[i]], y = (i) => 18 + 24 * line[i];
  const branches = [], names = [];
  nodes.forEach((node, i) => {
    const kind = node.best ? " best" : "", quiet = node.best || node.score !== null ? "" : " quiet";
    if (node.parent >= 0) {
      const p = node.parent, from = x(p) + wide(clip(nodes[p].piece, 12)) + 12, half = (from + x(i) - 8) / 2;
      branches[node.best ? "push" : "unshift"](`<path class="branch${kind}" d="M${from} ${y(p)} C${half} ${y(p)} ${half} ${y(i)} ${x(i) - 8} ${y(i)}"/>`);
    }
    const words = say("beam_tip", {text: node.text, log_prob: short(node.log_prob)})
      + (node.score === null ? "" : ` · ${say("beam_score", {score: short(node.score)})}`);
    names.push(`<g data-tip="${escape(words)}"><rect class="area" x="${x(i) - 8}" y="${y(i) - 11}" width="${24 + wide(clip(node.piece, 12))}" height="22"/><circle class="node${kind}" cx="${x(i)}" cy="${y(i)}" r="3.5"/>`
      + text(x(i) + 8, y(i) + 4, clip(node.piece, 12), `class="over${kind}${quiet}"`)
      + (node.score === null ? "" : text(x(i) + 14 + wide(clip(node.piece, 12)), y(i) + 4, short(node.score), 'class="quiet over"'))
      + "</g>");
  });
  const picture = svg(columns[columns.length - 1] + 30, 24 * next + 18, branches.join("") + names.join(""), L.beam);
  section("beam", "beam", paragraph("beam_text", {size}), picture);
}

function compare() {
  if (!T.reference) return;
  const {reference} = T, sum = (values) => short(values.reduce((a, b) => a + b, 0));
  const place = make("div"), probabilities = reference.log_probs.map(Math.exp);
  const box = chooser(make("div", {class: "steps"}), rising(reference, probabilities), (t) => {
    const before = ["<s>", ...reference.pieces.slice(0, t)].join(" ");
    place.replaceChildren(make("p", {}, say("output_of", {step: t + 1, before}), make("br"),
      make("span", {class: "quiet small"}, say("output_facts", {piece: reference.pieces[t],
        probability: percent(probabilities[t]), entropy: short(reference.entropy[t])}))),
      bars(reference.candidates[t].slice(0, 5).map(([name, logProb]) => [name, Math.exp(logProb),
        percent(Math.exp(logProb)), `${name}\nlog ${short(logProb)}`])));
  });
  section("reference", "compare",
    paragraph("compare_text", {own: sum(T.output.log_probs), other: sum(reference.log_probs)}), box, place);
}

head();
characters();
pieces();
oneHot();
embedding();
positions();
selfAttention();
crossAttention();
residual();
output();
beam();
compare();
document.documentElement.dataset.ready = "true"; // all of the above ran to its end
