ANALYZE organisation, unit, app_user, revoked_login, contact, accounts_receivable, rewards_participant, classification,
    access_token, transition
