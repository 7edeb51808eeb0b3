<?php
declare(strict_types=1);

/** Who may sign in. An app of yours has them in its database. */
const USERS = [
    'ann' => '$2y$10$ZteHVNwZtHkwL66H8Xyl..PVDLV3cOUgM.oS84CKOfaOyR685iiyq',
    'bob' => '$2y$10$VDfR0XUJQyo/TmzERe3wjeeIN.eVjfV5Ld0FE3wPALFl9ORVd8aZu',
];

function password_fits(string $user, string $password): bool
{
    // Takes as long for a name that nobody has.
    return password_verify($password, USERS[$user] ?? USERS['ann']) && isset(USERS[$user]);
}
