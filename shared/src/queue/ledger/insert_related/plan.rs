//! Decides which jobs of a transaction are refused, and what the others wait for. Contains no SQL.
//!
//! Invariant: a job that depends on a refused job is refused too, so no job waits for one that
//! never exists.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use super::statements::Dependency;
use crate::queue::{
    JobState, NewJob,
    ledger::relations::{BatchPart, Refusal, Relations},
};

/// The jobs of a transaction and the decisions about them.
pub(super) struct Plan<'a> {
    pub(super) jobs: Vec<&'a NewJob>,
    pub(super) refused: HashMap<Uuid, Refusal>,
    ids: HashSet<Uuid>,
    /// The dependencies outside of this transaction, by job id and tenant.
    found: HashMap<(Uuid, Uuid), Dependency>,
}

impl<'a> Plan<'a> {
    pub(super) fn new(requests: &[&'a [NewJob]]) -> Self {
        let jobs: Vec<&NewJob> = requests.iter().flat_map(|jobs| jobs.iter()).collect();
        let ids = jobs.iter().map(|job| job.id).collect();
        Self { jobs, refused: HashMap::new(), ids, found: HashMap::new() }
    }

    /// The dependencies outside of this transaction, each with the tenant that must own it.
    pub(super) fn outside(&self) -> Vec<(Uuid, Uuid)> {
        let after = |job: &&'a NewJob| {
            let tenant = *job.tenant.as_uuid();
            let relations = job.relations.as_deref();
            relations
                .into_iter()
                .flat_map(|relations| &relations.after)
                .map(move |id| (*id, tenant))
                .collect::<Vec<_>>()
        };
        let mut outside: Vec<_> = self.jobs.iter().flat_map(after).filter(|(id, _)| !self.ids.contains(id)).collect();
        outside.sort_unstable();
        outside.dedup();
        outside
    }

    /// Refuses jobs that depend on jobs the tenant does not have, or on jobs that cannot take
    /// another dependent.
    pub(super) fn find(&mut self, mut found: HashMap<(Uuid, Uuid), Dependency>) {
        for job in &self.jobs {
            let Some(relations) = job.relations.as_deref() else { continue };
            let tenant = *job.tenant.as_uuid();
            let places = |wrong: &dyn Fn(&Uuid) -> bool| -> Vec<usize> {
                (0..relations.after.len()).filter(|&at| wrong(&relations.after[at])).collect()
            };
            let unknown = places(&|id| !self.ids.contains(id) && !found.contains_key(&(*id, tenant)));
            let full = places(&|id| found.get(&(*id, tenant)).is_some_and(|dependency| dependency.room == 0));
            if !unknown.is_empty() {
                self.refused.insert(job.id, Refusal::UnknownDependencies { places: unknown });
            } else if !full.is_empty() {
                self.refused.insert(job.id, Refusal::TooManyDependents { places: full });
            } else {
                let named: HashSet<&Uuid> = relations.after.iter().collect();
                for id in named {
                    if let Some(dependency) = found.get_mut(&(*id, tenant)) {
                        dependency.room -= 1;
                    }
                }
            }
        }
        self.found = found;
        self.cascade();
    }

    /// Refuses jobs whose keys other jobs hold. Returns the jobs refused as a consequence, which
    /// may have taken a key before.
    pub(super) fn refuse_duplicates(&mut self, holders: &HashMap<(Uuid, String), Uuid>) -> Vec<Uuid> {
        for job in &self.jobs {
            let Some(unique) = job.relations.as_deref().and_then(|relations| relations.unique.as_ref()) else {
                continue;
            };
            let holder = holders.get(&(*job.tenant.as_uuid(), unique.key.clone()));
            if let Some(&holder) = holder.filter(|holder| **holder != job.id) {
                self.refused.entry(job.id).or_insert(Refusal::Duplicate { holder });
            }
        }
        let before: HashSet<Uuid> = self.refused.keys().copied().collect();
        self.cascade();
        self.refused.keys().copied().filter(|id| !before.contains(id)).collect()
    }

    /// Dependencies precede their dependents, so one pass finds all.
    fn cascade(&mut self) {
        for job in &self.jobs {
            let Some(relations) = job.relations.as_deref() else { continue };
            let place = relations.after.iter().position(|id| self.refused.contains_key(id));
            if let Some(place) = place {
                self.refused.entry(job.id).or_insert(Refusal::DependencyRefused { place });
            }
        }
        let counted: HashSet<Uuid> = self.kept().filter_map(|(_, relations)| member_of(relations)).collect();
        for job in &self.jobs {
            let batch = job.relations.as_deref().and_then(|relations| relations.batch);
            if matches!(batch, Some(BatchPart::Completion(id)) if !counted.contains(&id)) {
                self.refused.entry(job.id).or_insert(Refusal::DependencyRefused { place: 0 });
            }
        }
    }

    /// The jobs with relations that are not refused.
    pub(super) fn kept(&self) -> impl Iterator<Item = (&'a NewJob, &'a Relations)> {
        let kept = self.jobs.iter().filter(|job| !self.refused.contains_key(&job.id));
        kept.filter_map(|job| Some((*job, job.relations.as_deref()?)))
    }

    /// The jobs that a job must wait for, each once: jobs of this transaction, and outside jobs
    /// that have not completed.
    pub(super) fn open_dependencies(&self, job: &NewJob, relations: &Relations) -> Vec<Uuid> {
        let tenant = *job.tenant.as_uuid();
        let state = |id: &Uuid| self.found.get(&(*id, tenant)).map(|dependency| dependency.state);
        let mut open: Vec<Uuid> =
            relations.after.iter().copied().filter(|id| state(id) != Some(JobState::Completed)).collect();
        open.sort_unstable();
        open.dedup();
        open
    }

    /// Outside jobs that ended without completing: their dependents are settled in this same
    /// transaction.
    pub(super) fn failed(&self) -> impl Iterator<Item = (Uuid, Uuid, JobState)> {
        let failed = |state: JobState| state.is_final() && state != JobState::Completed;
        let found = self.found.iter().filter(move |(_, dependency)| failed(dependency.state));
        found.map(|((id, tenant), dependency)| (*id, *tenant, dependency.state))
    }
}

pub(super) fn member_of(relations: &Relations) -> Option<Uuid> {
    match relations.batch {
        Some(BatchPart::Member(id)) => Some(id),
        _ => None,
    }
}
