-- A refusal counts against the start of the campaign under which the mail was tried, once for each recipient: what was refused before
-- a person resumed the campaign says nothing of what that person has mended.
alter table recipients
    -- The campaign's send_generation when `refusal` was noted; null: none was, or a release that did not note it did.
    add column refused_in integer;
