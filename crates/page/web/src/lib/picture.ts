// What is seen as a file: a part of the page as SVG, drawn from what the browser has laid out, and a table as CSV.

const SVG = 'http://www.w3.org/2000/svg';
/** What of the style of a drawing must go with it: the sheet of the page does not. */
const DRAWN = ['fill', 'fill-opacity', 'stroke', 'stroke-width', 'stroke-dasharray', 'stroke-linecap', 'vector-effect', 'opacity'];

function escaped(text: string): string {
  return text.replace(/[&<>"]/g, (c) => `&#${c.charCodeAt(0)};`);
}

function isSeen(colour: string): boolean {
  return colour !== '' && colour !== 'transparent' && !/^rgba\(.*, 0\)$/.test(colour);
}

/** Where things are, counted from the corner of the whole. */
class Sheet {
  readonly parts: string[] = [];

  constructor(
    private readonly left: number,
    private readonly top: number,
  ) {}

  private place(box: DOMRect): string {
    const round = (n: number) => Math.round(n * 100) / 100;
    return `x="${round(box.left - this.left)}" y="${round(box.top - this.top)}" width="${round(box.width)}" height="${round(box.height)}"`;
  }

  element(element: Element): void {
    const style = getComputedStyle(element);
    const box = element.getBoundingClientRect();
    if (style.display === 'none' || style.visibility === 'hidden' || element.matches('.hidden, .save, .acts') || (box.width === 0 && box.height === 0)) return;
    if (element instanceof SVGSVGElement) return this.drawing(element, box, style);
    this.box(box, style);
    // What does not fit is cut off here too.
    const cut = style.overflowX !== 'visible' && element.scrollWidth > element.clientWidth;
    if (cut) this.parts.push(`<svg ${this.place(box)} viewBox="${box.left - this.left} ${box.top - this.top} ${box.width} ${box.height}">`);
    for (const child of element.childNodes) {
      if (child instanceof Element) this.element(child);
      else if (child instanceof Text) this.text(child, style);
    }
    if (cut) this.parts.push('</svg>');
  }

  private box(box: DOMRect, style: CSSStyleDeclaration): void {
    const radius = parseFloat(style.borderTopLeftRadius) || 0;
    const round = radius ? ` rx="${Math.min(radius, box.width / 2, box.height / 2)}"` : '';
    if (isSeen(style.backgroundColor)) this.parts.push(`<rect ${this.place(box)}${round} fill="${style.backgroundColor}"/>`);
    const sides = [
      [style.borderTopWidth, style.borderTopColor, box.left, box.top, box.right, box.top],
      [style.borderRightWidth, style.borderRightColor, box.right, box.top, box.right, box.bottom],
      [style.borderBottomWidth, style.borderBottomColor, box.left, box.bottom, box.right, box.bottom],
      [style.borderLeftWidth, style.borderLeftColor, box.left, box.top, box.left, box.bottom],
    ] as const;
    for (const [width, colour, x1, y1, x2, y2] of sides) {
      if (parseFloat(width) > 0 && isSeen(colour)) this.parts.push(`<line x1="${x1 - this.left}" y1="${y1 - this.top}" x2="${x2 - this.left}" y2="${y2 - this.top}" stroke="${colour}" stroke-width="${parseFloat(width)}"/>`);
    }
    if (parseFloat(style.outlineWidth) > 0 && style.outlineStyle === 'dashed') this.parts.push(`<rect ${this.place(box)} fill="none" stroke="${style.outlineColor}" stroke-width="${parseFloat(style.outlineWidth)}" stroke-dasharray="5 3"/>`);
  }

  private text(node: Text, style: CSSStyleDeclaration): void {
    for (const [line, box] of lines(node)) {
      const size = parseFloat(style.fontSize);
      const y = box.top - this.top + box.height / 2 + size * 0.35;
      const struck = style.textDecorationLine.includes('line-through') ? ' text-decoration="line-through"' : '';
      const words = style.textTransform === 'uppercase' ? line.toUpperCase() : line;
      this.parts.push(`<text x="${(box.left - this.left).toFixed(2)}" y="${y.toFixed(2)}" font-family="${escaped(style.fontFamily)}" font-size="${size}" font-weight="${style.fontWeight}" fill="${style.color}"${struck} xml:space="preserve">${escaped(words)}</text>`);
    }
  }

  private drawing(element: SVGSVGElement, box: DOMRect, style: CSSStyleDeclaration): void {
    const copy = element.cloneNode(true) as SVGSVGElement;
    const from = [element, ...element.querySelectorAll('*')];
    const to = [copy, ...copy.querySelectorAll('*')];
    from.forEach((one, at) => {
      const known = getComputedStyle(one);
      for (const name of DRAWN) if (one !== element || name !== 'opacity') to[at]!.setAttribute(name, known.getPropertyValue(name));
      to[at]!.removeAttribute('class');
    });
    for (const name of ['role', 'aria-label', 'aria-hidden', 'width', 'height', 'x', 'y']) copy.removeAttribute(name);
    if (isSeen(style.backgroundColor)) this.parts.push(`<rect ${this.place(box)} fill="${style.backgroundColor}"/>`);
    const text = new XMLSerializer().serializeToString(copy);
    this.parts.push(text.replace('<svg', `<svg ${this.place(box)}`));
  }
}

/** The lines of a text as they are broken, each with its place. */
function lines(node: Text): [string, DOMRect][] {
  const whole = node.data;
  if (!whole.trim()) return [];
  const range = document.createRange();
  range.selectNodeContents(node);
  const boxes = [...range.getClientRects()];
  if (boxes.length === 1) return [[whole.replace(/\s+/g, ' ').trim(), boxes[0]!]];
  const found: [string, DOMRect][] = [];
  for (let at = 0; at < whole.length; at += 1) {
    range.setStart(node, at);
    range.setEnd(node, at + 1);
    const box = range.getBoundingClientRect();
    if (box.width === 0) continue;
    const last = found.at(-1);
    if (last && Math.abs(last[1].top - box.top) < 2) last[0] += whole[at];
    else found.push([whole[at]!, box]);
  }
  return found.filter(([text]) => text.trim());
}

/** A part of the page as a picture of its own, as it is seen now: all of it, also what one has to scroll to. */
export function picture(element: Element, title: string): string {
  const scrolled = [...ancestors(element)].map((one) => [one, one.scrollTop, one.scrollLeft] as const);
  for (const [one] of scrolled) one.scrollTo(0, 0);
  const narrow = [element, ...element.querySelectorAll('.scroll')].filter((one): one is HTMLElement => one instanceof HTMLElement);
  for (const one of narrow) one.style.maxHeight = 'none';
  const box = element.getBoundingClientRect();
  const sheet = new Sheet(box.left, box.top);
  sheet.element(element);
  for (const one of narrow) one.style.maxHeight = '';
  for (const [one, top, left] of scrolled) one.scrollTo(left, top);
  const [width, height] = [Math.ceil(box.width), Math.ceil(box.height)];
  const ground = getComputedStyle(document.body).getPropertyValue('--surface').trim() || '#fff';
  return `<svg xmlns="${SVG}" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img" aria-label="${escaped(title)}"><title>${escaped(title)}</title><rect width="100%" height="100%" fill="${ground}"/>${sheet.parts.join('')}</svg>\n`;
}

function* ancestors(element: Element): Generator<Element> {
  for (let one: Element | null = element; one; one = one.parentElement) yield one;
}

/** A table as CSV (RFC 4180): what can be read in it, without its buttons. */
export function csv(table: HTMLTableElement): string {
  const rows = [...table.rows].filter((row) => row.closest('table') === table && !row.querySelector('td[colspan]'));
  return rows.map((row) => [...row.cells].filter((cell) => !isOrders(cell)).map((cell) => quoted(said(cell))).join(',') + '\r\n').join('');
}

function isOrders(cell: HTMLTableCellElement): boolean {
  return cell.matches('.acts') || cell.querySelector('div.acts') !== null || (cell.tagName === 'TH' && cell.scope === 'col' && cell.textContent !== '' && cell.textContent === cell.querySelector('.hidden')?.textContent);
}

/** A drawing is its label, if it has one. */
function said(cell: HTMLTableCellElement): string {
  const copy = cell.cloneNode(true) as HTMLElement;
  copy.querySelectorAll('.hidden, [aria-hidden]').forEach((one) => one.remove());
  copy.querySelectorAll('svg').forEach((one) => one.replaceWith(one.getAttribute('aria-label') ?? ''));
  copy.querySelectorAll('br, div, .tag, .sub').forEach((one) => one.before(' '));
  return (copy.textContent ?? '').replace(/\s+/g, ' ').trim();
}

/** A program that reads tables would take what begins so for a formula, and anybody may have written it. */
function quoted(text: string): string {
  const safe = /^[=+@]|^-\D/.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

/** Gives a text to the browser as a file. */
export function save(name: string, type: string, text: string): void {
  const link = document.createElement('a');
  link.href = URL.createObjectURL(new Blob([text], { type }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10_000);
}
