// Consent strings by the IAB's own libraries, one JSON a line, with what those libraries read in them.
// node consent_strings.mjs COUNT SEED [states], where @iabtcf/core and @iabgpp/cmpapi are installed.
// `states`: GPP strings without a TC string alone. With 600 2026 states it writes tests/data/gpp.ndjson.gz (gzip -9n).
import { createRequire } from "module";

const require = createRequire(process.cwd() + "/");
const { GppModel, Sections } = require("@iabgpp/cmpapi");
const { GVL, PurposeRestriction, TCModel, TCString } = require("@iabtcf/core");

const [count, seed] = process.argv.slice(2, 4).map(Number), statesAlone = process.argv[4] === "states";
let state = seed;
function random() {
  // mulberry32
  state = (state + 0x6d2b79f5) | 0;
  let t = Math.imul(state ^ (state >>> 15), 1 | state);
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
  return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
}
const below = (n) => Math.floor(random() * n);
const some = (from, to, share) => {
  const found = [];
  for (let n = from; n <= to; n++) if (random() < share) found.push(n);
  return found;
};
const MOST = [1, 12, 60, 900, 1400];
const vendors = () => some(1, MOST[below(MOST.length)], [0, 0.02, 0.3, 0.98, 1][below(5)]);

const names = Object.fromEntries(Array.from({ length: 11 }, (_, n) => [n + 1, { id: n + 1, name: `${n + 1}` }]));
const known = Object.fromEntries(
  Array.from({ length: 1400 }, (_, n) => [
    n + 1,
    {
      id: n + 1, name: `${n + 1}`, policyUrl: "https://v.example", specialPurposes: [1], features: [],
      specialFeatures: [], purposes: [1, 2, 3, 4, 7, 9], legIntPurposes: [8, 10, 11], flexiblePurposes: [2, 7, 8, 9, 10],
    },
  ]),
);
const list = new GVL({
  gvlSpecificationVersion: 3, vendorListVersion: 150, tcfPolicyVersion: 5, lastUpdated: "2026-11-01T00:00:00Z",
  purposes: names, specialPurposes: names, features: names, specialFeatures: names, stacks: {}, vendors: known,
});

function byCore() {
  const model = new TCModel(list);
  model.cmpId = 31;
  model.cmpVersion = 1 + below(60);
  model.isServiceSpecific = random() < 0.9;
  model.purposeOneTreatment = random() < 0.2;
  model.purposeConsents.set(some(1, 11, 0.5));
  model.purposeLegitimateInterests.set(some(2, 11, 0.5));
  model.vendorConsents.set(vendors());
  model.vendorLegitimateInterests.set(vendors());
  for (let n = below(4); n > 0; n--) {
    model.publisherRestrictions.add(1 + below(1400), new PurposeRestriction([2, 7, 8, 9, 10][below(5)], below(3)));
  }
  const text = TCString.encode(model);
  const said = TCString.decode(text);
  const restrictions = [];
  for (const one of said.publisherRestrictions.getRestrictions()) {
    for (const vendor of said.publisherRestrictions.getVendors(one)) {
      restrictions.push([one.purposeId, one.restrictionType, vendor]);
    }
  }
  const ids = (vector) => [...vector].filter(([, has]) => has).map(([id]) => id);
  return {
    kind: "tcf", text, policy: Number(said.policyVersion), created: said.created.getTime(),
    specific: said.isServiceSpecific, treatment: said.purposeOneTreatment, purposes: ids(said.purposeConsents),
    interests: ids(said.purposeLegitimateInterests), vendors: ids(said.vendorConsents),
    vendorInterests: ids(said.vendorLegitimateInterests), restrictions,
    disclosed: said.isServiceSpecific ? null : ids(said.vendorsDisclosed), // 1.5.6 writes it of the others alone
  };
}

const bits = (ids, width) => Array.from({ length: width }, (_, n) => ids.includes(n + 1));
const from = (flags) => flags.flatMap((has, n) => (has ? [n + 1] : []));

// The sections of the United States, and one string that has each, to ask it for their fields.
const STATES = [...Sections.SECTION_ID_NAME_MAP].filter(([id]) => id > 6);
const SENSITIVE_APART = ["usin", "usky", "usri"];
const EMPTY = new GppModel();
for (const [, section] of STATES) EMPTY.setFieldValue(section, "SaleOptOut", 0);

function byPlatform() {
  const model = new GppModel();
  const tcf = !statesAlone && random() < 0.6;
  if (tcf) {
    const set = (field, value) => model.setFieldValue("tcfeuv2", field, value);
    set("CmpId", 31);
    set("PolicyVersion", 5);
    set("IsServiceSpecific", true);
    set("VendorListVersion", 150);
    set("PurposeOneTreatment", random() < 0.2);
    set("PurposeConsents", bits(some(1, 11, 0.5), 24));
    set("PurposeLegitimateInterests", bits(some(2, 11, 0.5), 24));
    set("VendorConsents", vendors());
    set("VendorLegitimateInterests", vendors());
    set("VendorsDisclosed", vendors());
  }
  for (const [, section] of STATES) {
    if (random() < (statesAlone ? 0.75 : 0.5)) continue;
    for (const [field, value] of Object.entries(EMPTY.getSection(section))) {
      if (field === "Version" && section === "usnat") model.setFieldValue(section, field, 1 + below(2));
      if (/Version|SegmentType|^Mspa/.test(field)) continue;
      const any = Array.isArray(value) ? value.map(() => below(3)) : typeof value === "boolean" ? random() < 0.3 : below(3);
      model.setFieldValue(section, field, any);
    }
    if (EMPTY.hasField(section, "Gpc")) model.setFieldValue(section, "GpcSegmentIncluded", random() < 0.7);
    if (SENSITIVE_APART.includes(section)) model.setFieldValue(section, "SensitiveDataConsentSegmentIncluded", random() < 0.7);
  }
  if (random() < 0.4) {
    for (const field of ["Notice", "OptOutSale", "LspaCovered"]) model.setFieldValue("uspv1", field, "YN-"[below(3)]);
  }
  const text = model.encode();
  const said = new GppModel(text);
  const found = { kind: "gpp", text, sections: said.getSectionIds(), out: {} };
  for (const [id, section] of STATES) {
    if (!said.hasSection(section)) continue;
    const fields = Object.entries(said.getSection(section));
    const gpc = said.hasField(section, "Gpc") && said.getFieldValue(section, "GpcSegmentIncluded") && said.getFieldValue(section, "Gpc");
    found.out[id] = fields.some(([field, value]) => field.endsWith("OptOut") && value === 1) || gpc === true;
  }
  if (said.hasSection("uspv1")) found.out[6] = { Y: true, N: false, "-": null }[said.getFieldValue("uspv1", "OptOutSale")];
  if (said.hasSection("tcfeuv2")) {
    const get = (field) => said.getFieldValue("tcfeuv2", field);
    found.tcf = {
      policy: get("PolicyVersion"), created: new Date(get("Created")).getTime(), specific: get("IsServiceSpecific"),
      treatment: get("PurposeOneTreatment"), purposes: from(get("PurposeConsents")),
      interests: from(get("PurposeLegitimateInterests")), vendors: get("VendorConsents"),
      vendorInterests: get("VendorLegitimateInterests"), disclosed: get("VendorsDisclosed"), restrictions: [],
    };
  }
  return found;
}

for (let n = 0; n < count; n++) console.log(JSON.stringify(n % 2 && !statesAlone ? byCore() : byPlatform()));
