//! Finds leads of a campaign that lack a template variable, by their columns, without rendering a
//! mail for each.

use uuid::Uuid;

use crate::db::TenantTx;

/// A variable that some leads lack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingVariable {
    /// Name of the variable.
    pub name: String,
    /// Number of the campaign's leads without a value of this name.
    pub leads: i64,
    /// The address of one of them.
    pub example: String,
}

/// The variables among `names` that leads of the campaign lack, considering the first `scan`
/// recipients. One pass, whatever the number of names.
pub async fn missing(
    transaction: &mut TenantTx,
    campaign: Uuid,
    names: &[String],
    scan: i64,
) -> Result<Vec<MissingVariable>, sqlx::Error> {
    let tenant = *transaction.tenant().as_uuid();
    sqlx::query_as!(
        MissingVariable,
        r#"with lacking as (
             select l.email, l.variables
             from (select lead_id from recipients where tenant_id = $1 and campaign_id = $2 limit $4) r
             join leads l on l.tenant_id = $1 and l.id = r.lead_id
             where not l.variables ?& $3)
           select v.name as "name!", count(*) as "leads!", min(k.email) as "example!"
           from lacking k cross join unnest($3::text[]) as v (name)
           where not k.variables ? v.name
           group by v.name order by v.name"#,
        tenant,
        campaign,
        names,
        scan
    )
    .fetch_all(&mut **transaction)
    .await
}
