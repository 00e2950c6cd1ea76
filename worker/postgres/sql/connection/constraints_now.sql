-- Check now what is deferred to the commit, and would not be checked at all where a savepoint is rolled back.
SET CONSTRAINTS ALL IMMEDIATE
