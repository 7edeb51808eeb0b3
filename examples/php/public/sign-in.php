<?php
declare(strict_types=1);
require __DIR__ . '/../src/session.php';
require __DIR__ . '/../src/users.php';

open_session();
require_own_form();
// An app that faces the internet also counts how often somebody tries.
if (!password_fits(field('user'), field('password'))) {
    refuse(403, 'That name and password do not belong together.');
}
sign_in(field('user'));
go_home();
