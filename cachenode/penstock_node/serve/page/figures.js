// What is worked out of one node's record of /api/overview.

/** Its bytes and its room in the tiers that hold its share of the ring. */
export function owned(node) {
  const tiers = (node.tiers ?? []).filter(({ role }) => role === "owned");
  return tiers.length > 0 ? room(tiers) : whole(node);
}

/** Its bytes and its room in all tiers. */
export function filled(node) {
  return node.tiers?.length > 0 ? room(node.tiers) : whole(node);
}

function room(tiers) {
  const found = { used: 0, capacity: 0 };
  for (const tier of tiers) {
    found.used += tier.used_bytes;
    found.capacity += tier.capacity_bytes;
  }
  return found;
}

const whole = (node) => ({ used: node.cached_bytes, capacity: node.owned_capacity_bytes });

/** The sum of one kind of rates by name, such as `read_bytes`. */
export function sum(byName) {
  let found = 0;
  for (const name in byName) found += byName[name];
  return found;
}

/** Whether its figures are of now: a node that is away, or never answered, has none. */
export const answers = ({ state, told_at: toldAt }) => state !== "away" && toldAt > 0;

export const nodeLink = (id) => `#/node?id=${encodeURIComponent(id)}`;
export const modelLink = (url) => `#/model?url=${encodeURIComponent(url)}`;

const COLLATOR = new Intl.Collator("en", { numeric: true });

/** The order of names as people count: gpu-2 before gpu-10. */
export const byName = (one, other) => COLLATOR.compare(one, other);
