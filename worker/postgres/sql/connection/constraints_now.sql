-- Check deferred constraints now: where a savepoint is rolled back, the commit would never check them.
SET CONSTRAINTS ALL IMMEDIATE
