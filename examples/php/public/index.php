<?php
declare(strict_types=1);
require __DIR__ . '/../src/session.php';
require __DIR__ . '/../src/sidewire.php';
require __DIR__ . '/../src/users.php';

open_session();
$user = current_user();
$socket = preg_replace('/^http/', 'ws', sidewire_url());
header("Content-Security-Policy: default-src 'none'; script-src 'self'; connect-src " . sidewire_url() . " $socket; form-action 'self'; frame-ancestors 'none'");
header('Cache-Control: no-store');
?>
<!doctype html>
<meta charset="utf-8">
<title>Notes</title>
<?php if ($user === null): ?>
<form id="sign-in" method="post" action="/sign-in.php">
  <input type="hidden" name="form_token" value="<?= escape(form_token()) ?>">
  <label>Name <input name="user" required autocomplete="username"></label>
  <label>Password <input name="password" type="password" required autocomplete="current-password"></label>
  <button>Sign in</button>
</form>
<?php else: ?>
<p>You are <?= escape($user) ?>. Notes to you: <span id="state"></span></p>
<ul id="notes"></ul>
<form id="note" method="post" action="/note.php">
  <input type="hidden" name="form_token" value="<?= escape(form_token()) ?>">
  <label>To <select name="to">
    <?php foreach (array_keys(USERS) as $name): ?><option><?= escape($name) ?></option><?php endforeach ?>
  </select></label>
  <label>Note <input name="text" required maxlength="500"></label>
  <button>Send</button>
</form>
<form id="sign-out" method="post" action="/sign-out.php">
  <input type="hidden" name="form_token" value="<?= escape(form_token()) ?>">
  <button>Sign out</button>
</form>
<script src="/live.js" defer data-sidewire="<?= escape(sidewire_url()) ?>" data-channel="user.<?= escape($user) ?>.notes"></script>
<?php endif ?>
