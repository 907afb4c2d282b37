// A cluster out of nothing, as large as one likes, in the form of the API: 200 VIPs x 8 nodes x 1000 backends by default.

export function cluster({ vips = 200, nodes = 8, backends = 5 } = {}) {
  const names = Array.from({ length: nodes }, (_, n) => `lb${n + 1}`);
  const failed = nodes > 2 ? `lb${nodes}` : '';
  const state = { tick: 0, draining: null, config: 7, calls: [] };
  const started = Date.now();

  function owner(v) {
    if (v % 50 === 49) return null;
    return names[v % (nodes - (failed ? 1 : 0))];
  }

  function candidates(v) {
    const own = owner(v);
    const from = names.indexOf(own ?? names[0]);
    const order = names.map((_, n) => names[(from + n) % nodes]);
    return order.map((node, n) => {
      if (node === failed) return { node, preferred: null, standing: 'excluded', reason: `not heard for 2m14s` };
      if (own === null) return { node, preferred: null, standing: 'excluded', reason: 'its check postgres fails: connection refused' };
      if (n === 2 && v % 7 === 0) return { node, preferred: null, standing: 'excluded', reason: 'its interface eth0 is damped for 40 s' };
      return { node, preferred: n + 1, standing: n === 0 ? 'owner' : 'candidate', reason: n === 0 ? 'owns it' : 'could take it' };
    });
  }

  function service(v) {
    const name = `vip${String(v + 1).padStart(3, '0')}:443/tcp`;
    const list = Array.from({ length: backends }, (_, b) => {
      const down = (v * 5 + b) % 31 === 30;
      const drain = (v * 5 + b) % 47 === 46;
      const speed = (20 + ((v * 7 + b * 13) % 50)) * (1 + 0.3 * Math.sin(state.tick / 7 + v + b));
      const at = state.tick * 2;
      return {
        name: `web${b + 1}`,
        address: `10.1.${v % 250}.${b + 20}:8443`,
        state: down ? 'down' : drain ? 'drain' : 'up',
        reason: down ? 'HTTP 503' : drain ? 'patching (by ann)' : 'HTTP 200 in 1.2 ms',
        weight: b === 0 ? 20 : 10,
        backup: false,
        ...(drain ? { order: { duty: 'drain', weight: null, until: null, reason: 'patching (by ann)', node: 'lb1', at: started - 60_000, sentence: 'takes no new connections by order: patching (by ann), on lb1' } } : {}),
        ...(v % 9 === 8 ? {} : { traffic: { connections: down ? 0 : Math.round(speed * at), packets: Math.round(speed * at * 12), bytes: Math.round(speed * at * 9000) } }),
      };
    });
    return { name, port: '443/tcp', mode: v % 9 === 8 ? 'proxy' : 'xdp', engine: v % 9 === 8 ? 'proxy' : 'XDP (eth0: driver)', balance: 'hash', backends: list, up: list.filter((b) => b.state === 'up').length, problem: null };
  }

  function vip(v) {
    const own = owner(v);
    return {
      name: `vip${String(v + 1).padStart(3, '0')}`,
      addresses: [{ address: `10.0.${v >> 8}.${v & 255}/16`, interface: 'eth0', vip: `vip${String(v + 1).padStart(3, '0')}`, answered: false }],
      owner: own,
      mine: own === 'lb1',
      epoch: 3 + (v % 5),
      since_ms: own ? Date.now() - started + 4000 * (v + 1) ** 1.6 : null,
      lease_left_ms: own === 'lb1' ? 31 : null,
      votes: own === 'lb1' ? ['lb1', 'lb2', 'lb3'] : [],
      votes_needed: Math.floor(nodes / 2) + 1,
      safety: 'exclusive',
      safety_means: 'At most one node serves it: a majority of the members grants a lease, and the kernel stops answering when it ends.',
      yields_to: null,
      held: v % 37 === 5 ? { reason: 'a migration (by ann)', left_ms: 540_000 } : null,
      checks: [],
      failback: 'when the better node has been well for 60 s',
      services: [service(v)],
      candidates: candidates(v),
      ...(v === 2 ? { vrrp: [{ says: 'VRID 51: active with priority 180' }] } : {}),
      problem: own ? null : 'no node can own it: its check postgres fails on all of them',
    };
  }

  const events = Array.from({ length: 300 }, (_, e) => {
    const v = (e * 17) % vips;
    const at = started - (300 - e) * 11_000;
    const name = `vip${String(v + 1).padStart(3, '0')}`;
    const node = names[(e + v) % (nodes - 1 || 1)];
    if (e % 11 === 10) return { at, vip: null, node: failed, kind: 'peer_down', sentence: `${failed} is silent for 37 ms` };
    if (e % 5 === 4) return { at, vip: name, node: 'lb1', kind: 'acquired', sentence: 'lb1 took it over: lb2 was silent for 37 ms' };
    if (e % 5 === 3) return { at, vip: name, node: 'lb1', kind: 'served', sentence: 'the takeover took 8.1 ms, the first packet came 2.2 ms later', phases: { epoch: 4, detect_ms: 37, decide_ms: 3.2, address_ms: 5.4, announce_ms: 5.9, first_packet_ms: 8.1 } };
    if (e % 5 === 2) return { at, vip: name, node: 'lb1', kind: 'released', sentence: 'lb1 gave it up: its lease ended' };
    return { at, vip: name, node, kind: 'owner_heard', sentence: `${node} serves it now (epoch ${e % 9})` };
  });

  // A pool that is nearly full, one whose addresses are VIPs, and one with room in both versions.
  const given = (n, vip, kept) => ({ address: `10.20.0.${n}`, vip, reserved_for: kept ?? vip, given: kept === undefined });
  const reservations = [given(100, 'vip001'), given(101, 'vip002'), { address: '10.20.0.102', vip: null, reserved_for: 'printer', given: false }];
  const pool = (name, gives, priority, ranges, size, list) => {
    const used = list.filter((one) => one.vip).length;
    return { name, gives, priority, ranges, size, used, reserved: list.length - used, free: Math.max(0, size - list.length), addresses: list };
  };

  // lb4 does not hear lb2, which hears it; lb3 loses heartbeats; of the failed one nothing is known. vip003 has routers.
  function row(from, n) {
    const hears = names.filter((to) => to !== from).map((to, at) => {
      const alive = to !== failed && !(n === 3 && to === 'lb2');
      const answers = alive && !(n === 1 && to === 'lb4');
      return { node: to, alive, heard_ms: alive ? 3 + at : 134_000, answers, round_trip_ms: alive ? 0.15 + ((n * 3 + at) % 7) / 40 : null, loss_percent: !alive || !answers ? 100 : n === 2 && at === 1 ? 8 : 0 };
    });
    const active = n === 2;
    const router = (id, family) => ({ id, family, state: active ? 'active' : n === 4 ? 'stopped' : 'backup', priority: 200 - n * 10, interval_ms: 1000, heard: active || n === 4 ? null : { source: '10.9.0.3', priority: 180, ago_ms: 300 + n * 40 }, takes_over_in_ms: active || n === 4 ? null : 3200 + n, says: `VRID ${id}` });
    return { node: from, unknown: null, draining: n === 2 ? 'patching (by ann)' : null, cordoned: n === 1 ? 'a disk (by ann)' : null, hears, vrrp: [{ vip: 'vip003', routers: [router(51, 'ipv4'), router(51, 'ipv6')], refused: n === 1 ? { wrong_password: 12, ttl: 3 } : {} }] };
  }

  return {
    state,
    matrix: () => ({ node: 'lb1', rows: names.map((name, n) => (name === failed ? { node: name, unknown: 'no answer within 1 s', draining: null, cordoned: null, hears: [], vrrp: [] } : row(name, n))) }),
    // vip004 took too long once, vip003 is decided by VRRP, vip006 has little slack.
    budget: () => ({
      node: 'lb1', revision: 7, bound_ms: 315, term_ms: 32,
      vips: Array.from({ length: vips }, (_, v) => {
        const own = owner(v);
        const name = `vip${String(v + 1).padStart(3, '0')}`;
        const gaps = Array.from({ length: (v * 3) % 8 }, (_, g) => 2 + ((v * 13 + g * 29) % 60)).concat(v === 3 ? [740] : []).sort((a, b) => a - b);
        const unserved = gaps.reduce((sum, gap) => sum + gap, 0);
        const mine = own === 'lb1';
        const all = { vip: name, owner: own, unknown: null, availability: 1 - unserved / 86_400_000, known_ms: 86_400_000, unserved_ms: unserved, unknown_ms: v === 4 ? 3100 : 0, gaps: gaps.length, latest_gaps_ms: gaps, gap_p50_ms: gaps.at((gaps.length - 1) >> 1) ?? null, gap_p99_ms: gaps.at(-1) ?? null, over_bound: v === 3 ? 1 : 0, slack_ms: mine ? 21.3 : null, slack_least_ms: mine ? (v === 5 || nodes < 6 ? 4.1 : 12.8) : null };
        return v === 2 ? { ...all, unknown: 'VRRP decides about it, and routers elsewhere are not all heard', availability: null, known_ms: 0, unserved_ms: 0, gaps: 0, latest_gaps_ms: [], gap_p50_ms: null, gap_p99_ms: null } : all;
      }),
    }),
    reservations,
    pools: () => [
      pool('web', 'auto', 10, ['10.20.0.100-10.20.0.199', 'fd00:20::100-fd00:20::1ff'], 356, reservations),
      pool('small', 'named', null, ['10.21.0.0-10.21.0.9'], 10, Array.from({ length: 10 }, (_, n) => ({ address: `10.21.0.${n}`, vip: n === 4 ? null : `vip${String(n + 10).padStart(3, '0')}`, reserved_for: n === 4 ? 'a switch' : null, given: false }))),
      pool('each', 'each', null, ['10.0.0.0-10.0.0.199'], vips, Array.from({ length: vips }, (_, v) => ({ address: `10.0.0.${v}`, vip: `vip${String(v + 1).padStart(3, '0')}`, reserved_for: null, given: false }))),
    ],
    events: () => ({ events }),
    status() {
      state.tick += 1;
      const list = Array.from({ length: vips }, (_, v) => vip(v));
      return {
        cluster: 'edge', node: 'lb1', version: '0.1.0', generation: 7, digest: '0b00c0de', pid: 7, witness: false,
        draining: state.draining, drain_left_ms: null, cordoned: null,
        timing: { heartbeat_ms: 10, lease_ms: 32, lease_max_ms: 300, term_ms: 32, term_reason: null },
        links: [], safety: ['exclusive: at most one node serves such a VIP'], overlaps: 0,
        defences: ['the kernel gate stands: an answer leaves this host only while its lease lasts', 'a supervisor stands beside the agent'],
        problems: ['net.ipv4.conf.eth0.arp_ignore is 0: other addresses may be answered for; set it to 1'],
        loop: { realtime: 'SCHED_FIFO 50, memory locked', counters: { datagrams: 120_000 + state.tick * 700, late: 2, ignored_stale: 0 } },
        nodes: names.map((name, n) => ({
          name, address: `10.9.0.${n + 1}:4747`, witness: false, me: n === 0, alive: name !== failed, heard_ms: n === 0 ? null : name === failed ? 134_000 : 4.2,
          legs: [1, 2].map((leg) => ({ leg, address: `10.9.${leg - 1}.${n + 1}:4747`, heard_ms: n === 0 ? null : 4.1, alive: name !== failed && !(n === 3 && leg === 2) })),
          round_trip_ms: n === 0 || name === failed ? null : 0.18 + n / 50, hears_us: name !== failed && n !== 4, draining: n === 2, cordoned: false, digest: n === 5 ? 'deadbeef' : '0b00c0de', votes_in_ms: null,
          owns: list.filter((v) => v.owner === name).length,
          state: n === 0 ? 'this node' : name === failed ? 'not heard for 2m14s' : n === 4 ? 'it is heard and does not hear this node: the path works one way only' : 'well',
        })),
        vips: list,
        events: events.slice(-10),
      };
    },
    why(name) {
      const found = vip(Number(name.replace(/\D/g, '')) - 1);
      const history = events.filter((event) => event.vip === name);
      return { node: 'lb1', told_by: found.owner && found.owner !== 'lb1' ? found.owner : null, answer: found.owner ? `${found.owner} has owned ${name} for 5m12s; lb1 took it over: lb2 was silent for 37 ms.` : `Nobody owns ${name}: its check postgres fails on all nodes.`, vip: found, phases: { epoch: 4, detect_ms: 37, decide_ms: 3.2, address_ms: 5.4, announce_ms: 5.9, first_packet_ms: 8.1 }, history };
    },
  };
}
