import type { Results } from "./goals.ts";
import type { Line } from "./report.ts";

/** What a panel shows: a ratio of each line to its reference, and how it is scaled. */
interface Panel {
  readonly title: string;
  readonly axis: string;
  readonly value: (line: Line) => number;
  readonly label: (value: number) => string;
  /** The numbers at the scale, from the bottom of the panel to its top, where the largest value is `most`. */
  readonly ticks: (most: number) => readonly number[];
  /** Even on the scale what is an equal step, or an equal factor. */
  readonly even: (value: number) => number;
  readonly goal: { readonly at: number; readonly text: string };
}

/** The largest number of a series that is needed to hold a value, and those before. */
const upTo = (series: readonly number[], most: number): number[] => series.slice(0, Math.max(2, series.findIndex((tick) => tick >= most) + 1 || series.length));

const PANELS: readonly Panel[] = [
  {
    title: "Rate, of the reference's", axis: "% of the reference", value: ({ rateRatio }) => rateRatio * 100, label: (value) => value.toFixed(0),
    ticks: (most) => upTo([0, 20, 40, 60, 80, 100, 120, 140, 160, 180, 200], Math.max(100, most)), even: (value) => value, goal: { at: 50, text: "– –  goal of resolve at 64: at least 50 %" },
  },
  {
    title: "Server CPU of a call, of the reference's", axis: "times the reference (log scale)", value: ({ cpuRatio }) => cpuRatio, label: (value) => (value >= 10 ? value.toFixed(0) : value.toFixed(1)),
    ticks: (most) => upTo([1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000], most), even: (value) => Math.log(Math.max(1, value)), goal: { at: 1.9, text: "– –  goal of resolve at 64: at most 1.9 ×" },
  },
];

const [WIDTH, MARGIN, TOP, PANEL_HEIGHT, PANEL_GAP, FOOT] = [1_120, { left: 76, right: 28 }, 128, 250, 112, 96] as const;
/** From few calls in flight to many. */
const COLOURS = ["#9ecae1", "#4f9bd0", "#1f6cab", "#0b3666", "#7a5195", "#ef5675"] as const;
const INK = { text: "#1c2733", soft: "#5b6b7b", grid: "#e3e9ef", axis: "#9aa8b5", goal: "#c2410c" } as const;

const escape = (text: string): string => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");
const round = (value: number): number => Math.round(value * 10) / 10;

interface TextStyle {
  readonly size?: number;
  readonly fill?: string;
  readonly anchor?: "start" | "middle" | "end";
  readonly weight?: number;
  readonly rotate?: boolean;
}

function text(x: number, y: number, content: string, { size = 12, fill = INK.text, anchor = "start", weight = 400, rotate = false }: TextStyle = {}): string {
  const turn = rotate ? ` transform="rotate(-90 ${round(x)} ${round(y)})"` : "";
  return `<text x="${round(x)}" y="${round(y)}" font-size="${size}" fill="${fill}" text-anchor="${anchor}" font-weight="${weight}"${turn}>${escape(content)}</text>`;
}

const rule = (x1: number, y1: number, x2: number, y2: number, colour: string, more = ""): string =>
  `<line x1="${round(x1)}" y1="${round(y1)}" x2="${round(x2)}" y2="${round(y2)}" stroke="${colour}"${more}/>`;

/** A method's lines, under the name that the chart gives it. */
interface Cluster {
  readonly name: string;
  readonly under: string;
  readonly lines: readonly Line[];
}

/** Every method that is compared with another, as the best driver saw it: h2load where it was there, mixed calls by grpc-js. */
function clusters({ lines }: Results): Cluster[] {
  const compared = lines.filter((line) => line.method !== line.reference);
  const methods = [...new Set(compared.map(({ method }) => method))];
  return methods.map((method) => {
    const mine = compared.filter((line) => line.method === method);
    const driver = mine.find((line) => line.driver.startsWith("h2load"))?.driver ?? mine[0]?.driver ?? "";
    const short = method.replace("Credential, OAuth", ", OAuth").replace(/Credentials?$/, "").replace("mixed (90 % resolve)", "Mixed, 90 % resolve");
    return { name: short, under: mine[0]?.reference.startsWith("node") ? "beside node:http" : "beside empty call", lines: mine.filter((line) => line.driver === driver) };
  });
}

function panel({ title, axis, value, label, ticks, even, goal }: Panel, groups: readonly Cluster[], concurrencies: readonly number[], top: number): string {
  const [left, right, bottom] = [MARGIN.left, WIDTH - MARGIN.right, top + PANEL_HEIGHT];
  const marks = ticks(Math.max(...groups.flatMap(({ lines }) => lines.map(value)).filter(Number.isFinite)));
  const [least, most] = [even(marks[0] ?? 0), even(marks.at(-1) ?? 1)];
  const y = (at: number) => bottom - ((even(at) - least) / (most - least)) * PANEL_HEIGHT;
  const parts = [
    text(left, top - 22, title, { size: 15, weight: 600 }), text(right, top - 22, goal.text, { fill: INK.goal, anchor: "end" }),
    text(24, (top + bottom) / 2, axis, { fill: INK.soft, anchor: "middle", rotate: true }),
  ];
  for (const [index, at] of marks.entries()) parts.push(rule(left, y(at), right, y(at), index === 0 ? INK.axis : INK.grid), text(left - 8, y(at) + 4, String(at), { fill: INK.soft, anchor: "end" }));
  const slot = (right - left) / Math.max(1, groups.length);
  const bar = Math.min(30, (slot * 0.8) / concurrencies.length);
  for (const [index, { name, under, lines }] of groups.entries()) {
    const middle = left + slot * (index + 0.5);
    for (const line of lines) {
      const place = concurrencies.indexOf(line.concurrency);
      const [x, above] = [middle + (place - concurrencies.length / 2) * bar, y(value(line))];
      if (!Number.isFinite(above)) continue;
      const said = escape(`${line.method}, ${line.concurrency} in flight, ${line.driver}: ${label(value(line))}`);
      parts.push(`<rect x="${round(x + 1)}" y="${round(above)}" width="${round(bar - 2)}" height="${round(bottom - above)}" rx="2" fill="${COLOURS[place % COLOURS.length]}"><title>${said}</title></rect>`);
      parts.push(text(x + bar / 2, above - 4, label(value(line)), { size: 10, fill: INK.soft, anchor: "middle" }));
    }
    if (index === 0) parts.push(rule(middle - slot / 2, y(goal.at), middle + slot / 2, y(goal.at), INK.goal, ' stroke-dasharray="5 4" stroke-width="1.6"'));
    parts.push(text(middle, bottom + 18, name, { anchor: "middle", weight: 600 }), text(middle, bottom + 33, under, { size: 10.5, fill: INK.soft, anchor: "middle" }));
    parts.push(text(middle, bottom + 47, lines[0]?.driver ?? "", { size: 10.5, fill: INK.soft, anchor: "middle" }));
  }
  return parts.join("\n");
}

/** The ratios of a run as a picture: for each method and number of calls in flight, what it costs beside the call that does nothing. SVG. */
export function chart(results: Results): string {
  const groups = clusters(results);
  const concurrencies = [...new Set(groups.flatMap(({ lines }) => lines.map(({ concurrency }) => concurrency)))].toSorted((a, b) => a - b);
  const height = TOP + PANELS.length * PANEL_HEIGHT + (PANELS.length - 1) * PANEL_GAP + FOOT;
  const { machine, drivers, rounds, date } = results;
  const head = [
    text(MARGIN.left, 40, "What a call costs beside one that does nothing", { size: 22, weight: 700 }),
    text(MARGIN.left, 63, `Each round compares with the reference of the same round, driver and number of calls in flight; medians of ${rounds} round${rounds === 1 ? "" : "s"}. Every audit record is committed before its reply.`, { fill: INK.soft }),
  ];
  let x = WIDTH - MARGIN.right;
  for (const [place, inFlight] of [...concurrencies.entries()].toReversed()) {
    const said = String(inFlight);
    x -= said.length * 7 + 4;
    head.push(text(x, 40, said));
    x -= 17;
    head.push(`<rect x="${x}" y="30" width="12" height="12" rx="2" fill="${COLOURS[place % COLOURS.length]}"/>`);
    x -= 12;
  }
  head.push(text(x, 40, "in flight", { fill: INK.soft, anchor: "end" }));
  const panels = PANELS.map((each, index) => panel(each, groups, concurrencies, TOP + index * (PANEL_HEIGHT + PANEL_GAP)));
  const foot = `${date.slice(0, 10)} · ${machine.cpu.trim()}, ${machine.cores} cores, ${machine.memoryGiB} GiB, shared by server, driver and PostgreSQL · Node.js ${machine.node}, PostgreSQL ${machine.postgres.split(" ")[0]}${drivers.h2load === null ? "" : ` · h2load ${drivers.h2load}`} · ${drivers.grpc}`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, 'Segoe UI', 'DejaVu Sans', sans-serif" role="img" aria-label="Rates and server CPU of calls beside an empty call">
<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>
${head.join("\n")}
${panels.join("\n")}
${text(MARGIN.left, height - 16, foot, { size: 11, fill: INK.soft })}
</svg>
`;
}
