//! The services of a leader, one per file. Each implements [`crate::maintainer::Service`].

mod campaign_keeper;
mod cascader;
mod cleaner;
mod crawler;
mod depth;
mod expirer;
mod index_checker;
mod limit_keeper;
mod month_dropper;
mod promoter;
mod reconciler;
mod rescuer;
mod sweeper;

pub use campaign_keeper::{CampaignKeeper, CampaignReport};
pub use cascader::Cascader;
pub use cleaner::Cleaner;
pub use crawler::Crawler;
pub use depth::Depth;
pub use expirer::Expirer;
pub use index_checker::IndexChecker;
pub use limit_keeper::LimitKeeper;
pub use month_dropper::MonthDropper;
pub use promoter::Promoter;
pub use reconciler::IndexKeeper;
pub use rescuer::Rescuer;
pub use sweeper::Sweeper;
