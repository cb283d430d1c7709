-- Which jobs of a batch are refused is known after its idempotency key is taken: the note is added in the same transaction.
grant update (refused) on idempotency_keys to rota_system;
