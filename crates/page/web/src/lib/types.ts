// The answers of the API, as far as the page reads them; `crates/api` has the whole of each.

export interface Status {
  cluster: string;
  node: string;
  version: string;
  generation: number;
  digest: string;
  witness: boolean;
  draining: string | null;
  drain_left_ms: number | null;
  cordoned: string | null;
  timing: { heartbeat_ms: number; lease_ms: number; lease_max_ms: number; term_ms: number | null; term_reason: string | null };
  links: { name: string; unheard: boolean; damped_left_ms: number | null }[];
  safety: string[];
  overlaps: number;
  defences: string[];
  problems: string[];
  loop: { realtime: string; counters: Record<string, number> };
  nodes: Node[];
  vips: Vip[];
  events: Event[];
}

export interface Leg {
  leg: number;
  address: string;
  heard_ms: number | null;
  alive: boolean;
}

export interface Node {
  name: string;
  address: string;
  legs: Leg[];
  witness: boolean;
  me: boolean;
  alive: boolean;
  heard_ms: number | null;
  round_trip_ms: number | null;
  hears_us: boolean;
  draining: boolean;
  cordoned: boolean;
  digest: string | null;
  votes_in_ms: number | null;
  owns: number;
  state: string;
}

export interface Candidate {
  node: string;
  preferred: number | null;
  standing: 'owner' | 'wants' | 'candidate' | 'excluded';
  reason: string;
}

export interface Order {
  duty: string;
  weight: string | null;
  until: number | null;
  reason: string;
  node: string;
  at: number;
  sentence: string;
}

export interface Backend {
  name: string;
  address: string;
  state: string;
  reason: string;
  weight: number;
  order?: Order;
  backup: boolean;
  urgent?: boolean;
  share?: number;
  traffic?: { connections: number; packets: number; bytes: number };
  dropped?: Record<string, number>;
}

export interface Service {
  name: string;
  port: string;
  mode: string;
  engine: string;
  table?: string;
  balance: string;
  backends: Backend[];
  up: number;
  problem: string | null;
  new_connections?: string;
  limited?: number;
  dropped?: Record<string, number>;
}

export interface Vip {
  name: string;
  addresses: { address: string; interface: string | null; vip: string; answered: boolean }[];
  owner: string | null;
  mine: boolean;
  epoch: number;
  since_ms: number | null;
  lease_left_ms: number | null;
  votes: string[];
  votes_needed: number;
  safety: string;
  safety_means: string;
  yields_to: string | null;
  held: { reason: string; left_ms: number | null } | null;
  checks: { name: string; asks: string; state: string; reason: string }[];
  failback: string;
  services: Service[];
  candidates: Candidate[];
  /** The virtual routers that decide who owns it; older agents do not say. */
  vrrp?: { says: string }[];
  /** Who has it by VRRP, where that is no node of the cluster. */
  router?: string | null;
  problem: string | null;
}

export interface Phases {
  epoch: number;
  detect_ms: number;
  decide_ms: number;
  address_ms: number;
  announce_ms: number;
  first_packet_ms: number | null;
}

export interface Event {
  at: number;
  vip: string | null;
  node?: string;
  kind: string;
  sentence: string;
  phases?: Phases;
}

export interface Why {
  node: string;
  answer: string;
  /** Whose words answer, phases and history are, where they are those of the owner and it is another node. */
  told_by?: string | null;
  vip: Vip;
  phases: Phases | null;
  history: Event[];
}

export interface Path {
  node: string;
  from: string;
  to: string;
  protocol: string;
  vip: string | null;
  engine: string;
  ways: { of: string; verdict: string; backend: string | null; reason: string }[];
}

export interface Me {
  node: string;
  name: string;
  by: string;
  role: string;
  may: string[];
}

export interface Problem {
  status: number;
  code: string;
  title: string;
  detail: string;
  fix?: string;
  revision?: number;
}

export interface PoolAddress {
  address: string;
  vip: string | null;
  reserved_for: string | null;
  given: boolean;
}

export interface Pool {
  name: string;
  gives: 'each' | 'named' | 'auto';
  priority: number | null;
  ranges: string[];
  size: number;
  used: number;
  reserved: number;
  free: number;
  addresses: PoolAddress[];
}

export interface Heard {
  node: string;
  alive: boolean;
  heard_ms: number | null;
  answers: boolean;
  round_trip_ms: number | null;
  loss_percent: number | null;
}

export interface Router {
  id: number;
  family: string;
  state: 'active' | 'backup' | 'due' | 'stopped';
  priority: number;
  interval_ms: number;
  heard: { source: string; priority: number; ago_ms: number } | null;
  takes_over_in_ms: number | null;
  says: string;
}

/** What a node says of itself and of the others. */
export interface Row {
  node: string;
  unknown: string | null;
  draining: string | null;
  cordoned: string | null;
  hears: Heard[];
  vrrp: { vip: string; routers: Router[]; refused: Record<string, number> }[];
}

/** How well one VIP has kept its promise. */
export interface Kept {
  vip: string;
  owner: string | null;
  unknown: string | null;
  availability: number | null;
  known_ms: number;
  unserved_ms: number;
  unknown_ms: number;
  gaps: number;
  latest_gaps_ms: number[];
  gap_p50_ms: number | null;
  gap_p99_ms: number | null;
  over_bound: number;
  slack_ms: number | null;
  slack_least_ms: number | null;
}

export interface Budget {
  node: string;
  bound_ms: number;
  term_ms: number;
  vips: Kept[];
}

/** What the engine has counted for a backend; null: it does not count that. */
export interface BackendFlows {
  backend: string;
  flows: Counts;
}

export interface Counts {
  open: number | null;
  opened: number | null;
  packets: number | null;
  bytes: number | null;
  bytes_back: number | null;
  source: string;
}
