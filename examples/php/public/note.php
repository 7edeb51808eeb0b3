<?php
declare(strict_types=1);
require __DIR__ . '/../src/session.php';
require __DIR__ . '/../src/sidewire.php';
require __DIR__ . '/../src/users.php';

open_session();
require_own_form();
$user = current_user() ?? refuse(403, 'Sign in first.');
$to = field('to');
$text = field('text');
if (!isset(USERS[$to]) || $text === '' || strlen($text) > 2000) {
    refuse(400, 'A note has somebody that it is to, and up to 500 letters.');
}
// The session is not needed any longer: other requests of this user need not wait for this one.
session_write_close();
$note = ['channel' => "user.$to.notes", 'event' => 'note', 'data' => ['from' => $user, 'text' => $text]];
if (!sidewire('/v1/publish', $note)) {
    refuse(503, 'The note could not be sent. Try again in a moment.');
}
go_home();
