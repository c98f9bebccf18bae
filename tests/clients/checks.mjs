// Runs the checks of one client and prints what was exercised as JSON: checks.py says how.

export const URL = process.env.MOMA_URL; // without /v1
export const BASE_URL = `${URL}/v1`;
export const KEY = process.env.MOMA_KEY;
export const EMPTY_KEY = process.env.MOMA_EMPTY_KEY;
export const REAL = "smollm2-135m";
const ABSENT = JSON.parse(process.env.MOMA_ABSENT);

export async function run(version, groups) {
  const report = {};
  for (const [group, checks] of Object.entries(groups)) {
    report[group] = group in ABSENT ? { passed: [], left_out: { all: ABSENT[group] } } : await done(checks);
  }
  console.log(JSON.stringify({ version, groups: report }));
}

async function done(checks) {
  for (const [name, check] of Object.entries(checks)) {
    console.error("checking", name);
    await check();
  }
  return { passed: Object.keys(checks), left_out: {} };
}

// The error that the call raises, for which `fits` must hold.
export async function raises(fits, call) {
  try {
    await call();
  } catch (error) {
    if (!fits(error)) throw error;
    return error;
  }
  throw new Error("no error");
}
