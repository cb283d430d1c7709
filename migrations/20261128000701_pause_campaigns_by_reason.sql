-- Why a campaign rests: at a person's request, because the relay is away (it is resumed by itself), because the relay refuses the
-- sender, or because its job was cancelled or discarded. And what a mail's attempts have come to: failures are counted in time, not in number, and a mail that may have been
-- taken is repeated with the same octets and not for ever.
alter table campaigns
    add column pause_reason text
        constraint campaigns_pause_reason_known check (pause_reason in ('requested', 'relay_unavailable', 'refused', 'job_ended')),
    add column pause_detail text,
    -- Recipients refused alike since the last change of `refusal`, less the mails that were taken meanwhile.
    add column refusals integer not null default 0,
    add column refusal text;

alter table recipients
    -- The date in the mail, once octets of it have left.
    add column handed_over_at timestamptz,
    -- The first failure that counts against this mail.
    add column failing_since timestamptz,
    -- How often the whole message went out and nobody knows whether it was taken.
    add column unanswered smallint not null default 0,
    -- Stage and codes of the last refusal that speaks of the sender.
    add column refusal text;
