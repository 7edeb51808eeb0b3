<?php
declare(strict_types=1);
require __DIR__ . '/../src/session.php';
require __DIR__ . '/../src/sidewire.php';

open_session();
require_own_form();
$user = current_user();
sign_out();
// First the session ends, and then what was opened with it: who comes back at once is asked about, and refused. A page
// of the same user in another browser comes back.
if ($user !== null) {
    sidewire('/v1/disconnect', ['user' => $user]);
}
go_home();
