"""The concepts of the synthetic hospital: ids of the OMOP vocabularies where we know them, else of OMOP's local range.

Source: athena.ohdsi.org; local concepts have ids above 2,000,000,000 by OMOP's convention.
"""

from dataclasses import dataclass

FEMALE, MALE = 8532, 8507
INPATIENT, OUTPATIENT, EMERGENCY = 9201, 9202, 9203
EHR = 32817
OUTCOME = 316139
DYSPNEA, EDEMA = 312437, 433595
SYMPTOMS = (DYSPNEA, EDEMA)
REFERRED, STABLE = 2_000_000_501, 2_000_000_502
NT_PROBNP = 3029187
FIRST_LOCAL_DRUG = 2_000_001_000
NUM_DRUGS_PER_CONDITION = 6


@dataclass(frozen=True)
class Condition:
    """A latent condition with the diagnosis that shows it.

    Attributes:
        share: of patients aged 60 who have it.
        age_slope: rise of the log odds per 10 years.
        drugs: "id name" of those its patients get, most frequent first; filled up with local ones.
    """

    concept: int
    name: str
    share: float
    age_slope: float
    drugs: str


@dataclass(frozen=True)
class Lab:
    """A measurement: normally distributed with mean and std, or its logarithm where is_log.

    Attributes:
        per_visit: probability that a visit has it.
        heart: standard deviations it rises per unit of heart strain.
        impossible: a value no patient has, in `unit`.
        other_unit: (unit concept, text, factor, offset), value there = factor * value + offset; None: no other in use.
    """

    concept: int
    name: str
    unit_concept: int
    unit: str
    mean: float
    std: float
    is_log: bool
    per_visit: float
    heart: float
    impossible: float
    decimals: int
    other_unit: tuple[int, str, float, float] | None = None


CONDITIONS = (
    Condition(
        320128,
        "Essential hypertension",
        0.34,
        0.35,
        "1308216 lisinopril;1332418 amlodipine;974166 hydrochlorothiazide;"
        "1367500 losartan;1308842 valsartan;1334456 ramipril",
    ),
    Condition(
        201826,
        "Type 2 diabetes mellitus",
        0.20,
        0.2,
        "1503297 metformin;1560171 glipizide;1502905 insulin glargine;"
        "1580747 sitagliptin;1597756 glimepiride;1525215 pioglitazone",
    ),
    Condition(
        432867,
        "Hyperlipidemia",
        0.26,
        0.2,
        "1545958 atorvastatin;1539403 simvastatin;1510813 rosuvastatin;"
        "1551860 pravastatin;1526475 ezetimibe;1551803 fenofibrate",
    ),
    Condition(
        317576,
        "Coronary arteriosclerosis",
        0.14,
        0.5,
        "1112807 aspirin;1322184 clopidogrel;1361711 nitroglycerin;1383925 isosorbide",
    ),
    Condition(
        313217,
        "Atrial fibrillation",
        0.09,
        0.6,
        "43013024 apixaban;1310149 warfarin;40241331 rivaroxaban;"
        "1326303 digoxin;1309944 amiodarone;40228152 dabigatran",
    ),
    Condition(46271022, "Chronic kidney disease", 0.10, 0.4, "956874 furosemide;19035631 ferrous gluconate"),
    Condition(
        255573,
        "Chronic obstructive pulmonary disease",
        0.10,
        0.4,
        "1154343 albuterol;1106776 tiotropium;1112921 ipratropium;1551099 prednisone",
    ),
    Condition(317009, "Asthma", 0.10, -0.1, "1149380 fluticasone;1154161 montelukast;939259 budesonide"),
    Condition(
        440383,
        "Depressive disorder",
        0.14,
        -0.1,
        "739138 sertraline;797617 citalopram;715939 escitalopram;755695 fluoxetine;743670 venlafaxine;750982 bupropion",
    ),
    Condition(442077, "Anxiety disorder", 0.12, -0.2, "781039 alprazolam;791967 lorazepam;733301 buspirone"),
    Condition(
        80180,
        "Osteoarthritis",
        0.20,
        0.3,
        "1177480 ibuprofen;1115008 naproxen;1124300 diclofenac;1118084 celecoxib;1150345 meloxicam;1103314 tramadol",
    ),
    Condition(80502, "Osteoporosis", 0.08, 0.5, "1557272 alendronate;1513103 risedronate"),
    Condition(
        318800,
        "Gastroesophageal reflux disease",
        0.18,
        0.1,
        "923645 omeprazole;948078 pantoprazole;904453 esomeprazole;929887 lansoprazole;953076 famotidine",
    ),
    Condition(140673, "Hypothyroidism", 0.10, 0.2, "1501700 levothyroxine"),
    Condition(
        80809,
        "Rheumatoid arthritis",
        0.05,
        0.1,
        "1305058 methotrexate;1777087 hydroxychloroquine;964339 sulfasalazine;1119119 adalimumab",
    ),
    Condition(440674, "Gout", 0.06, 0.2, "1167322 allopurinol;1101554 colchicine"),
    Condition(
        380378, "Epilepsy", 0.03, 0.0, "711584 levetiracetam;705103 lamotrigine;745466 valproate;742267 topiramate"
    ),
    Condition(378419, "Alzheimer's disease", 0.05, 0.9, "715997 donepezil;701322 memantine"),
    Condition(201620, "Kidney stone", 0.09, 0.5, "924566 tamsulosin"),
    Condition(257007, "Allergic rhinitis", 0.14, -0.2, "1107830 loratadine;1149196 cetirizine;1153428 fexofenadine"),
    Condition(439777, "Anemia", 0.10, 0.2, "1396131 ferrous sulfate;1308738 vitamin B12"),
    Condition(
        81902,
        "Urinary tract infectious disease",
        0.12,
        0.1,
        "1797513 ciprofloxacin;920293 nitrofurantoin;1705674 trimethoprim",
    ),
    Condition(
        255848,
        "Pneumonia",
        0.08,
        0.3,
        "1713332 amoxicillin;1734104 azithromycin;1738521 doxycycline;1742253 levofloxacin",
    ),
    Condition(318736, "Migraine", 0.08, -0.3, "1140643 sumatriptan"),
)
# Raise heart strain, and so symptoms, NT-proBNP and, through them, the outcome.
CARDIAC = (320128, 317576, 313217, 46271022)
# Protect from the outcome while they are recent; given to anyone, cardiac patients more often.
BETA_BLOCKERS = "1307046 metoprolol;1346823 carvedilol;1338005 bisoprolol;1314002 atenolol"
GENERAL_DRUGS = (
    "1125315 acetaminophen;1174888 hydrocodone;1124957 oxycodone;"
    "1110410 morphine;744740 zolpidem;778711 cyclobenzaprine"
)
LABS = (
    Lab(NT_PROBNP, "NT-proBNP", 8845, "pg/mL", 5.0, 0.55, True, 0.55, 0.9, 9e6, 0),
    Lab(3004249, "Systolic blood pressure", 8876, "mm[Hg]", 130, 14, False, 0.12, 0.0, 1300, 0),
    Lab(3016723, "Creatinine", 8840, "mg/dL", 0.0, 0.25, True, 0.05, 0.3, 990, 2, (8749, "umol/L", 88.42, 0.0)),
    Lab(3004501, "Glucose", 8840, "mg/dL", 4.65, 0.25, True, 0.05, 0.0, 99_999, 0, (8753, "mmol/L", 1 / 18.016, 0.0)),
    Lab(3000963, "Hemoglobin", 8713, "g/dL", 13.5, 1.4, False, 0.05, 0.0, 135, 1, (8636, "g/L", 10.0, 0.0)),
    Lab(3025315, "Body weight", 9529, "kg", 78, 13, False, 0.05, 0.0, 7800, 1, (8739, "[lb_av]", 2.20462262, 0.0)),
    Lab(3020891, "Body temperature", 586323, "Cel", 36.8, 0.4, False, 0.05, 0.0, 368, 1, (9289, "[degF]", 1.8, 32.0)),
    Lab(3027114, "Cholesterol", 8840, "mg/dL", 195, 35, False, 0.05, 0.0, 19_500, 0, (8753, "mmol/L", 1 / 38.665, 0.0)),
    Lab(3023103, "Potassium", 8753, "mmol/L", 4.2, 0.4, False, 0.05, 0.0, 420, 1),
    Lab(3004410, "Hemoglobin A1c", 8554, "%", 6.0, 0.9, False, 0.05, 0.0, 600, 1),
)
PROCEDURES = (
    (REFERRED, "Referral to heart clinic"),
    (STABLE, "Discharge from heart clinic in stable condition"),
    (4163872, "Plain chest X-ray"),
    (4163951, "Electrocardiographic procedure"),
    (4326177, "Medication reconciliation"),
    (4181917, "Electroencephalogram"),
    (4195803, "Bone density scan"),
    (4133840, "Spirometry"),
)


def drug_list(text: str) -> list[tuple[int, str]]:
    """ "id name;id name" as pairs."""
    return [(int(part.split(" ", 1)[0]), part.split(" ", 1)[1]) for part in text.split(";")]


def drugs_by_condition() -> list[list[tuple[int, str]]]:
    """Per condition its drugs, (id, name), local ones where fewer than NUM_DRUGS_PER_CONDITION are named."""
    found = []
    for place, condition in enumerate(CONDITIONS):
        named = drug_list(condition.drugs)
        first = FIRST_LOCAL_DRUG + 10 * place
        local = [
            (first + number, f"Hospital formulary {place + 1:02d}-{number + 1}: for {condition.name.lower()}")
            for number in range(NUM_DRUGS_PER_CONDITION - len(named))
        ]
        found.append(named + local)
    return found


def all_names() -> list[tuple[int, str, str, str]]:
    """(concept_id, name, domain, vocabulary) of every concept the hospital uses, by id, each once."""
    conditions = [(c.concept, c.name) for c in CONDITIONS]
    conditions += [(OUTCOME, "Heart failure"), (DYSPNEA, "Dyspnea"), (EDEMA, "Edema")]
    drugs = [drug for drugs in drugs_by_condition() for drug in drugs]
    drugs += drug_list(BETA_BLOCKERS) + drug_list(GENERAL_DRUGS)
    rows = [(*pair, "Condition", "SNOMED") for pair in conditions]
    rows += [(*pair, "Drug", "RxNorm") for pair in drugs]
    rows += [(lab.concept, lab.name, "Measurement", "LOINC") for lab in LABS]
    rows += [(*pair, "Procedure", "SNOMED") for pair in PROCEDURES]
    return sorted(
        (i, name, domain, vocabulary if i < 2_000_000_000 else "Hospital") for i, name, domain, vocabulary in rows
    )
