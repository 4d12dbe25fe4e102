// From characters to vectors, and where they stand.

const sides = [["source", T.source], ["target", T.target]];

function head() {
  const facts = {...T.model, parameters: T.model.parameters.toLocaleString()};
  const entries = [["sentence", "source", T.source.text], ["translation", "target", T.target.text]];
  if (T.reference) entries.push(["reference", "quiet", T.reference.text]);
  document.getElementById("top").append(
    make("div", {class: "bar"}, make("h1", {}, L.title),
      make("button", {id: "theme", type: "button", onclick: turn}, `◐ ${L.theme}`)),
    make("dl", {class: "pair"}, entries.flatMap(([key, kind, words]) =>
      [make("dt", {}, L[key]), make("dd", {class: kind}, words)])),
    make("p", {class: "quiet small facts"}, say("facts", facts)),
    make("nav", {"aria-label": L.contents}, contents));
  document.getElementById("end").append(make("p", {}, L.footer));
}

function characters() {
  const code = (c) => "U+" + c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0");
  const bytes = (c) => [...new TextEncoder().encode(c)].map((b) => b.toString(16).padStart(2, "0")).join(" ");
  section("characters", "characters", paragraph("characters_text"), sides.map(([kind, side]) =>
    make("div", {class: "chips"}, [...side.text].map((c) =>
      make("div", {class: "chip", "data-tip": `${c}  ${code(c)}\nUTF-8: ${bytes(c)}`},
        make("b", {class: kind}, c === " " ? "␣" : c), make("span", {}, code(c)))))));
}

const chips = (kind, side) => make("div", {class: "chips"}, side.pieces.map((piece, i) =>
  make("div", {class: "chip", "data-tip": `${piece}  →  ${side.ids[i]}`},
    make("b", {class: kind}, piece), make("span", {}, String(side.ids[i])))));

function pieces() {
  section("pieces", "pieces", paragraph("pieces_text"), sides.map(([kind, side]) => chips(kind, side)));
}

function oneHot() {
  section("one-hot", "one_hot", paragraph("one_hot_text"), sides.map(([kind, side]) =>
    make("div", {class: "hot"}, side.pieces.flatMap((piece, i) => {
      const [id, size] = [side.ids[i], T.model[kind]];
      const words = say("one_hot_tip", {piece, id, rest: size - 1});
      const tick = make("i", {class: kind});
      tick.style.left = `${100 * id / (size - 1)}%`;
      return [make("div", {}, piece), make("div", {class: `zeros ${kind}`, "data-tip": words}, tick)];
    }), make("p", {class: "axis"}, `${L.entry} 0 … ${T.model[kind] - 1} →`))));
}

function embedding() {
  const pictures = sides.flatMap(([, side]) => [
    strip(array(side.embedded), 17, side.pieces,
      (i, j, v) => `${side.pieces[i]} · ${L.channel} ${j}\n${short(v)}`),
    make("p", {class: "axis"}, `${say("embedding_axis", T.model)} →`)]);
  section("embedding", "embedding", paragraph("embedding_text", T.model), pictures,
    make("h3", {}, L.neighbours), paragraph("neighbours_text"), neighbours(),
    make("h3", {}, L.picture),
    make("p", {}, say("picture_text", {share: (100 * (T.picture.share[0] + T.picture.share[1])).toFixed(0)}),
      " ", L[T.model.one_table ? "picture_one" : "picture_two"]),
    picture());
}

function neighbours() {
  const all = sides.flatMap(([kind, side]) => side.pieces.map((piece, i) => [kind, piece, side.near[i]]));
  const place = make("div"), box = make("div", {class: "chips"});
  const buttons = all.map(([kind, piece]) => make("button", {class: kind}, piece));
  chooser(box, buttons, (i) => {
    const [, piece, near] = all[i];
    place.replaceChildren(make("p", {class: "quiet small"}, say("neighbours_of", {piece})),
      bars(near.map(([name, cosine]) => [name, cosine, short(cosine), `${L.cosine} ${short(cosine)}`])));
  });
  return make("div", {id: "neighbours"}, box, place);
}

// A point's place, and how near it lies to what: a piece of the sentence to its nearest neighbour,
// a neighbour to the piece of the sentence that it is nearest to.
function dotWords(p) {
  const {pieces, near} = T[p.side], at = `${p.name}\n(${short(p.x)}, ${short(p.y)})`;
  const found = p.own ? near[pieces.indexOf(p.name)] : near.flatMap((others, i) =>
    others.filter(([name]) => name === p.name).map(([, cosine]) => [pieces[i], cosine]));
  if (!found.length) return at;
  const [piece, cosine] = found.reduce((a, b) => b[1] > a[1] ? b : a);
  return `${at}\n${say("near_tip", {piece, cosine: short(cosine)})}`;
}

// Names are written where there is room: first those of the sentence, then neighbours.
function picture() {
  const points = T.picture.points, [width, height, edge] = [760, 460, 46];
  const range = (key) => [Math.min(...points.map((p) => p[key])), Math.max(...points.map((p) => p[key]))];
  const place = (v, [low, high], from, to) => from + (v - low) / (high - low || 1) * (to - from);
  const [xs, ys] = [range("x"), range("y")], taken = [], dots = [], names = [];
  const spots = points.map((p) => ({...p, px: place(p.x, xs, edge, width - edge * 1.6),
    py: place(p.y, ys, height - edge, edge)}));
  for (const p of spots) if (p.own) taken.push([p.px - 5, p.py - 5, p.px + 5, p.py + 5]);
  for (const p of spots) {
    dots.push(`<circle class="dot ${p.side}" cx="${p.px.toFixed(1)}" cy="${p.py.toFixed(1)}" r="${p.own ? 6 : 3}"`
      + ` fill-opacity="${p.own ? 1 : .5}" data-tip="${escape(dotWords(p))}"/>`);
    const size = p.own ? 13 : 11, long = wide(p.name, size);
    const tries = [[p.px + 9, p.py + 4], [p.px - 9 - long, p.py + 4], [p.px - long / 2, p.py - 10], [p.px - long / 2, p.py + 20]];
    const free = tries.find(([x, y]) => x > 0 && x + long < width && !taken.some((b) =>
      x < b[2] && x + long > b[0] && y - size < b[3] && y + 3 > b[1]));
    if (!free) continue;
    taken.push([free[0], free[1] - size, free[0] + long, free[1] + 3]);
    names.push(text(free[0].toFixed(1), free[1].toFixed(1), p.name,
      `class="over ${p.own ? p.side : "quiet"}" style="font-size:${size}px" pointer-events="none"`));
  }
  const axes = text(width - 4, height - 6, `${(100 * T.picture.share[0]).toFixed(1)} % →`, 'class="quiet" text-anchor="end"')
    + text(4, 14, `↑ ${(100 * T.picture.share[1]).toFixed(1)} %`, 'class="quiet"');
  const frame = `<rect class="grid" x=".5" y=".5" width="${width - 1}" height="${height - 1}" rx="8"/>`;
  return svg(width, height, frame + axes + dots.join("") + names.join(""), L.picture);
}

function positions() {
  const {added, by_distance: byDistance, rotary, scheme} = T.positions, parts = [];
  const other = T.positions.decoder_added, title = (key) => make("h3", {}, L[key]);
  if (added && other) {
    parts.push(paragraph("positions_text"), paragraph("positions_two"),
      title("residual_encoder"), ...vectors(added), paragraph("positions_dots"), alike(added),
      title("residual_decoder"), ...vectors(other), alike(other));
  } else if (added) {
    parts.push(paragraph("positions_text"), ...vectors(added), paragraph("positions_dots"), alike(added));
  } else if (!byDistance && !rotary) parts.push(paragraph("positions_none"));
  else parts.push(paragraph("positions_relative", {scheme}));
  if (byDistance) parts.push(paragraph("positions_by_distance"), ...distances(byDistance));
  if (rotary) {
    const numbers = array(rotary), side = Array.from({length: numbers.shape[0]}, (_, i) => i % 8 ? "" : String(i));
    parts.push(paragraph("positions_rotary"),
      strip(numbers, 4, side, (i, j, v) => `${L.distance} ${i} · ${L.channel} ${j}\ncos ${short(v)}`),
      make("p", {class: "axis"}, `${L.channel} 0 … ${numbers.shape[1] - 1} →`));
  }
  section("positions", "positions", ...parts);
}

const everyEighth = (positions) => Array.from({length: positions}, (_, i) => i % 8 ? "" : `${L.position} ${i}`);

// The vector of each place.
function vectors(table) {
  const numbers = array(table), [positions, width] = numbers.shape;
  return [strip(numbers, 4, everyEighth(positions), (i, j, v) => `${L.position} ${i} · ${L.channel} ${j}\n${short(v)}`),
    make("p", {class: "axis"}, `${L.channel} 0 … ${width - 1} →`)];
}

// The products of all pairs of positions.
function alike(table) {
  const numbers = array(table), [positions, width] = numbers.shape, values = new Float32Array(positions * positions);
  for (let i = 0; i < positions; i++) {
    for (let j = 0; j < positions; j++) {
      let sum = 0;
      for (let k = 0; k < width; k++) sum += numbers(i, k) * numbers(j, k);
      values[i * positions + j] = sum;
    }
  }
  const at = Object.assign((i, j) => values[i * positions + j], {shape: [positions, positions], values});
  const box = strip(at, 4, everyEighth(positions), (i, j, v) => `${L.position} ${i} · ${L.position} ${j}\n${short(v)}`);
  box.classList.add("square");
  return box;
}

function distances({encoder, decoder, distances: positions}) {
  const draw = (kind, rows, label) => lines({
    series: rows.map((values, n) => ({name: `${L.head} ${n + 1}`, kind, values})),
    points: positions.map(String), label, axis: `${label} · ${L.score}`,
    words: (name, i, v) => `${name} · ${L.distance} ${positions[i]}\n${v === null ? L.hidden : short(v)}`});
  return [draw("source", encoder, L.residual_encoder), draw("target", decoder, L.residual_decoder)];
}
