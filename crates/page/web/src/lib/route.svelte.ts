// Which view is shown, and of what: in the address, so that it can be sent to a colleague.

class Route {
  private hash = $state(location.hash);

  constructor() {
    addEventListener('hashchange', () => (this.hash = location.hash));
  }

  /** As in `#/map/web`. */
  private get parts(): string[] {
    return this.hash.replace(/^#\/?/, '').split('/').map(decode);
  }

  get view(): string {
    return this.parts[0] || 'map';
  }

  get item(): string {
    return this.parts[1] ?? '';
  }
}

function decode(text: string): string {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

export const route = new Route();

export function href(view: string, item = ''): string {
  return item ? `#/${view}/${encodeURIComponent(item)}` : `#/${view}`;
}

export function go(view: string, item = ''): void {
  location.hash = href(view, item);
}

class Search {
  text = $state('');

  /** Whether one of these says what is looked for. */
  finds(...texts: (string | null | undefined)[]): boolean {
    const wanted = this.text.trim().toLowerCase();
    return wanted === '' || texts.some((text) => text?.toLowerCase().includes(wanted));
  }
}

export const search = new Search();
