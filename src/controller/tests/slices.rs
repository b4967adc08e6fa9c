//! Regressions that sit in one slice, in the loop.

use super::*;
use crate::evaluate::plan::{GroupPlan, SliceAnswer};

/// Version, tenant, and what each tick started and failed.
pub(super) type Tenants = &'static [(&'static str, &'static str, u64, u64)];

const BOTH: &[(&str, usize)] = &[("v1", 2), ("v2", 2)];
const ONE_SICK: Tenants =
    &[("v1", "a", 80, 0), ("v1", "b", 20, 0), ("v2", "a", 80, 0), ("v2", "b", 20, 15)];
const ALL_SICK: Tenants =
    &[("v1", "a", 80, 0), ("v1", "b", 20, 0), ("v2", "a", 80, 40), ("v2", "b", 20, 10)];

impl Stage {
    /// The answers by slice to a group's question, if it is asked and there are any.
    pub(super) fn slices(&self, group: &GroupPlan) -> BTreeMap<usize, SliceAnswer> {
        let (Some(plan), Some(tenants)) = (&group.slices, self.tenants) else {
            return BTreeMap::new();
        };
        let over =
            |span: Option<Span>| span.map(|span| by_tenant(span, tenants)).unwrap_or_default();
        let histories = plan.histories.iter().map(|_| RuleAnswer::default()).collect();
        let (ticks, unfinished) = (over(plan.ticks), over(group.unfinished));
        BTreeMap::from([(0, SliceAnswer { ticks, unfinished, histories })])
    }

    async fn looks_by_tenant(&mut self, count: usize, whole: Tenants) {
        let sum = |version: &str, pick: fn(&(&str, &str, u64, u64)) -> u64| {
            whole.iter().filter(|tenant| tenant.0 == version).map(pick).sum()
        };
        let counts =
            ["v1", "v2"].map(|v| (v, sum(v, |tenant| tenant.2), sum(v, |tenant| tenant.3)));
        for _ in 0..count {
            self.look(BOTH, &counts).await;
        }
    }
}

fn by_tenant(span: Span, tenants: Tenants) -> RuleAnswer {
    let side = |pick: fn(&(&str, &str, u64, u64)) -> u64| -> Vec<Series> {
        let each = tenants.iter().map(|tenant| {
            let points: Vec<_> = span.ends().map(|end| (end, pick(tenant) as f64)).collect();
            let mut series = series("", tenant.0, None, &points);
            series.labels.insert("tenant".to_owned(), tenant.1.to_owned());
            series
        });
        each.collect()
    };
    RuleAnswer { started: side(|t| t.2), failed: side(|t| t.3), ..RuleAnswer::default() }
}

/// v2 has just appeared beside v1, watched by a rule that knows tenants.
async fn watching(tenants: Option<Tenants>) -> Stage {
    let mut stage = Stage::new();
    let groups = Arc::make_mut(&mut stage.controller.entries[0].groups);
    groups[0].sessions[0].narrow_by = vec!["agent".to_owned(), "tenant".to_owned()];
    stage.tenants = tenants;
    stage.look(&[("v1", 2)], &[("v1", 100, 0)]).await;
    stage.look(BOTH, &[("v1", 100, 0)]).await;
    stage
}

#[tokio::test]
async fn a_regression_of_one_tenant_is_told_once_and_rolls_nothing_back() {
    let mut stage = watching(Some(ONE_SICK)).await;
    stage.looks_by_tenant(1, ONE_SICK).await;
    assert_eq!(stage.last_record().event, "rollout.regressed", "the slices are asked first");
    assert!(stage.controller.entries[0].out_of_turn, "and at once");
    stage.looks_by_tenant(45, ONE_SICK).await;
    let told = stage.last_record();
    assert_eq!((told.event.as_str(), told.seq), ("rollout.fix_forward", 4), "{:?}", stage.events());
    let narrow = &told.extra["narrow"];
    assert_eq!(narrow["slice"], serde_json::json!({ "label": "tenant", "value": "b" }));
    assert_eq!(
        (narrow["excess_share"].as_f64(), narrow["traffic_share"].as_f64()),
        (Some(1.0), Some(0.2))
    );
    let rest = narrow["rest"]["ticks"][0][0].as_array().unwrap();
    assert_eq!((&rest[0], &rest[1]), (&80.into(), &0.into()));
    assert!(told.extra["reason"].as_str().unwrap().contains("tenant b holds 100% of the excess"));
    let view = stage.controller.ports.view.borrow().clone();
    let shown = view.fleets["voice"].rollouts[0].narrow.as_ref().unwrap();
    assert_eq!((shown.label.as_str(), shown.value.as_str()), ("tenant", "b"));
    assert_eq!((shown.rest.verdict.as_str(), shown.rest.failed), ("healthy", 0));
    assert!(shown.rest.started > 0);
}

#[tokio::test]
async fn when_the_rest_regresses_too_it_is_rolled_back() {
    let mut stage = watching(Some(ONE_SICK)).await;
    stage.looks_by_tenant(5, ONE_SICK).await;
    assert_eq!(stage.last_record().event, "rollout.fix_forward");
    stage.tenants = Some(ALL_SICK);
    stage.looks_by_tenant(1, ALL_SICK).await;
    assert!(stage.events().contains(&"rollback.chosen".to_owned()), "{:?}", stage.events());
}

#[tokio::test]
async fn without_an_answer_by_slice_a_regression_is_wide() {
    let mut stage = watching(None).await;
    stage.looks_by_tenant(1, ONE_SICK).await;
    assert!(!stage.events().contains(&"rollback.chosen".to_owned()), "it is asked");
    stage.looks_by_tenant(1, ONE_SICK).await;
    assert!(stage.events().contains(&"rollback.chosen".to_owned()), "{:?}", stage.events());
}

#[tokio::test]
async fn half_an_answer_by_slice_is_none() {
    let mut stage = watching(Some(ONE_SICK)).await;
    stage.looks_by_tenant(4, ONE_SICK).await;
    assert_eq!(stage.last_record().event, "rollout.fix_forward");
    // The sick tenant's sessions are known, those of the others are not.
    stage.tenants = Some(&[("v2", "b", 20, 15)]);
    stage.looks_by_tenant(1, ONE_SICK).await;
    assert!(stage.events().contains(&"rollback.chosen".to_owned()), "{:?}", stage.events());
}
