// Every layer's and head's attention, why Q and K are two, and the alignment.

// A grid of all layers × heads in small; a click chooses one: show(layer, head). Hover tells the
// largest number of a head, of which `words` gives [name, value] at a layer, head, row and column.
function heads(weights, names, words, show) {
  const [layers, count, rows, columns] = weights.shape;
  const box = make("div", {class: "heads"}), buttons = [];
  box.style.gridTemplateColumns = `auto repeat(${count}, auto)`;
  box.append(make("span"), ...Array.from({length: count}, (_, n) => make("span", {}, `${L.head} ${n + 1}`)));
  const press = (layer, head) => {
    buttons.forEach((b, i) => b.setAttribute("aria-pressed", String(i === layer * count + head)));
    show(layer, head);
  };
  for (let l = 0; l < layers; l++) {
    box.append(make("span", {}, `${L.layer} ${l + 1}`));
    for (let n = 0; n < count; n++) {
      const canvas = paint(make("canvas"), rows, columns, (i, j) => weights(l, n, i, j), false);
      const most = Math.max(rows, columns);
      canvas.style.width = `${Math.max(16, 46 * columns / most)}px`;
      canvas.style.height = `${Math.max(16, 46 * rows / most)}px`;
      const name = `${L.layer} ${l + 1} · ${L.head} ${n + 1}`;
      const button = make("button", {type: "button", "aria-label": name, onclick: () => press(l, n),
        "data-tip": `${name}\n${largestOf(weights, l, n, names, words)}`}, canvas);
      buttons.push(button);
      box.append(button);
    }
  }
  return [box, () => press(0, 0)];
}

function largestOf(weights, l, n, [asking, asked], words) {
  let [i, j] = [0, 0];
  asking.forEach((_, a) => asked.forEach((_, b) => {
    if (Math.abs(weights(l, n, a, b)) > Math.abs(weights(l, n, i, j))) [i, j] = [a, b];
  }));
  const [what, value] = words(l, n, i, j);
  return say("head_tip", {what, value: short(value), asks: asking[i], asked: asked[j]});
}

function variance(values) {
  const mean = values.reduce((a, b) => a + b, 0) / values.length;
  return values.reduce((a, b) => a + (b - mean) ** 2, 0) / values.length;
}

const largest = (values) => values.reduce((m, v) => Math.max(m, Math.abs(v)), 1e-9);

// The steps from scores to weights, for one kind of attention.
function attention(kind, rows, columns) {
  const data = T[kind], mask = data.mask, dots = data.kind === "softmax" || data.kind === "local";
  const root = dots ? Math.sqrt(T.model.head_dim) : 1;
  const [products, scores, weights] = [data.products, data.scores, data.weights].map(array);
  const added = data.added && array(data.added);
  const place = panels(columns), title = make("p", {class: "quiet small"});
  const seen = (i, j) => mask[i][j], hidden = (i, j) => !mask[i][j];
  const all = (f) => rows.flatMap((_, i) => columns.map((_, j) => f(i, j)));
  const some = mask.some((row) => row.some((x) => !x));
  const first = dots ? L.products : L[`products_${data.kind}`];
  const show = (l, n) => {
    const [product, score, weight] = [products, scores, weights].map((a) => (i, j) => a(l, n, i, j));
    const scaled = (i, j) => product(i, j) / root;
    const words = (i, j) => [`${rows[i]} → ${columns[j]}`, `${L.score} ${short(product(i, j))}`,
      ...dots ? [`÷ √${T.model.head_dim} = ${short(scaled(i, j))}`] : [],
      ...added ? [`+ ${short(added(l, n, i, j))} = ${short(score(i, j))}`] : [],
      `${L.weight} ${seen(i, j) ? short(weight(i, j)) : `0 (${L.hidden})`}`].join("\n");
    const draw = (title, note, value, options) => panel(title, note, matrix({
      rows, columns, value, words, label: title, axes: [L.asks, L.asked], signed: true,
      most: largest(all(value)), ...options}));
    const spread = (f) => ({variance: short(variance(all(f))), times: T.model.head_dim});
    const steps = [[first, say("products_note", spread(product)), product]];
    if (dots) steps.push([say("scaled", {width: T.model.head_dim}), say("scaled_note", spread(scaled)), scaled]);
    if (added) steps.push([L.with_positions, "", (i, j) => added(l, n, i, j)]);
    steps.push([L.masked, L[some ? "masked_some" : "masked_none"], score, {hidden}]);
    steps.push(data.kind === "linear" ? [L.weights_linear, L.no_weights, weight, {hidden, most: 1}]
      : [L.weights, L.weights_note, weight, {hidden, signed: false, most: 1}]);
    title.textContent = `${L.layer} ${l + 1} · ${L.head} ${n + 1}`;
    place.replaceChildren(...steps.map((parts, i) => draw(`${i + 1} · ${parts[0]}`, ...parts.slice(1))));
  };
  const words = (l, n, i, j) => [L.weight, weights(l, n, i, j)];
  const [box, start] = heads(weights, [rows, columns], words, show);
  start();
  return [box, title, place];
}

const readSoFar = ["<s>", ...T.target.pieces.slice(0, -1)];

function selfAttention() {
  section("encoder", "encoder", paragraph("encoder_text"),
    ...attention("encoder", T.source.pieces, T.source.pieces));
  if (["softmax", "local"].includes(T.encoder.kind)) {
    section("two-matrices", "two_matrices", paragraph("two_matrices_text"), ...asymmetry());
  }
  section("decoder", "decoder", paragraph("decoder_text"), ...attention("decoder", readSoFar, readSoFar));
}

function asymmetry() {
  const [two, one] = [T.two_matrices, T.one_matrix].map(array), names = T.source.pieces;
  const place = panels(names), fact = make("p", {class: "quiet"});
  const all = (f) => names.flatMap((_, i) => names.map((_, j) => f(i, j)));
  const show = (l, n) => {
    const drawn = [[two, "with_two"], [one, "with_one"]].flatMap(([numbers, key]) => {
      const value = (i, j) => numbers(l, n, i, j), turned = (i, j) => value(i, j) - value(j, i);
      const most = largest(all(value));
      const draw = (name, f) => panel(L[name], "", matrix({rows: names, columns: names, value: f, most,
        signed: true, label: L[name], axes: [L.asks, L.asked],
        words: (i, j) => `${names[i]} → ${names[j]}: ${short(value(i, j))}\n${names[j]} → ${names[i]}: ${short(value(j, i))}`}));
      return [draw(key, value), draw(`${key}_turned`, turned)];
    });
    const squares = (f) => all(f).reduce((sum, v) => sum + v * v, 0);
    const odd = squares((i, j) => (two(l, n, i, j) - two(l, n, j, i)) / 2);
    const share = (100 * odd / (squares((i, j) => two(l, n, i, j)) || 1)).toFixed(0);
    fact.textContent = say("asymmetry", {share});
    place.replaceChildren(...drawn);
  };
  const shares = Object.assign((l, n, i, j) => Math.abs(two(l, n, i, j)) / two.largest, {shape: two.shape});
  const words = (l, n, i, j) => [L.score, two(l, n, i, j)];
  const [box, start] = heads(shares, [names, names], words, show);
  start();
  return [box, fact, place];
}

function crossAttention() {
  section("cross", "cross", paragraph("cross_text"),
    ...attention("cross", T.target.pieces, T.source.pieces),
    make("h3", {}, L.alignment), paragraph("alignment_text", {layer: T.alignment.layer}), alignment());
}

// Source pieces above, target pieces below, a line for each pair.
function alignment() {
  const gap = 14, row = (names) => {
    let x = 8;
    return names.map((name) => { const w = wide(name, 15), at = x + w / 2; x += w + gap; return at; });
  };
  const [above, below] = [row(T.source.pieces), row(T.target.pieces)];
  const ends = [[above, T.source.pieces], [below, T.target.pieces]].map(([xs, names]) =>
    xs[xs.length - 1] + wide(names[names.length - 1], 15) / 2 + 8);
  const width = Math.max(...ends), [y1, y2] = [28, 138], weights = array(T.alignment.weights);
  const move = ends.map((end) => (width - end) / 2);
  const parts = T.alignment.pairs.map(([s, t]) => {
    const [x1, x2, w] = [above[s] + move[0], below[t] + move[1], weights(t, s)];
    return `<path class="link" stroke-width="${(1 + 4 * w).toFixed(1)}" stroke-opacity="${(.3 + .7 * w).toFixed(2)}"`
      + ` d="M${x1} ${y1 + 8} C${x1} ${y1 + 55} ${x2} ${y2 - 62} ${x2} ${y2 - 18}" data-tip="${escape(
        `${T.source.pieces[s]} — ${T.target.pieces[t]}\n${s}-${t} · ${L.weight} ${short(w)}`)}"/>`;
  });
  T.source.pieces.forEach((name, i) => parts.push(text(above[i] + move[0], y1, name, 'class="source" text-anchor="middle" style="font-size:15px"')));
  T.target.pieces.forEach((name, i) => parts.push(text(below[i] + move[1], y2, name, 'class="target" text-anchor="middle" style="font-size:15px"')));
  return make("div", {}, svg(width, 156, parts.join(""), L.alignment),
    make("p", {class: "axis"}, T.alignment.pairs.map(([s, t]) => `${s}-${t}`).join(" ")));
}
