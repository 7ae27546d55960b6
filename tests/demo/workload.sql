-- A small shop for the demo: orders come in, are changed and shipped; now and then somebody changes a table.
CREATE DATABASE demo;
USE demo;
CREATE TABLE done (client INT PRIMARY KEY, seq BIGINT NOT NULL);
CREATE TABLE orders (
  id BIGINT PRIMARY KEY AUTO_INCREMENT, client INT NOT NULL, placed TIMESTAMP(6) DEFAULT CURRENT_TIMESTAMP(6),
  state ENUM('new', 'paid', 'shipped') NOT NULL DEFAULT 'new', note VARCHAR(400), details JSON, KEY (client, state));
CREATE TABLE items (order_id BIGINT, line INT, article INT, price DECIMAL(10, 2), PRIMARY KEY (order_id, line));
CREATE TABLE stopped (yes INT PRIMARY KEY);
INSERT INTO done VALUES (1, 0), (2, 0), (3, 0);
DELIMITER //
CREATE PROCEDURE business(who INT)
BEGIN
  DECLARE i INT DEFAULT 0;
  DECLARE o BIGINT;
  WHILE NOT EXISTS (SELECT 1 FROM stopped) DO
    -- each transaction counts itself, so that the demo can tell how many were acknowledged
    START TRANSACTION;
    INSERT INTO orders (client, note, details) VALUES (who, CONCAT('order of client ', who, ' ', REPEAT(HEX(i * 7919 + who), 20)),
      JSON_OBJECT('city', ELT(1 + i % 5, 'Aachen', 'Bergen', 'Cádiz', 'Dublin', 'Évora'), 'gift', i % 3 = 0));
    SET o = LAST_INSERT_ID();
    INSERT INTO items VALUES (o, 1, i % 97, 9.90 + i % 1000), (o, 2, i % 89, 1.25), (o, 3, i % 83, RAND() * 100);
    UPDATE done SET seq = seq + 1 WHERE client = who;
    COMMIT;
    START TRANSACTION;
    UPDATE orders SET state = 'paid', details = JSON_SET(details, '$.paid', TRUE) WHERE id = o;
    UPDATE done SET seq = seq + 1 WHERE client = who;
    COMMIT;
    IF i % 10 = 9 THEN
      START TRANSACTION;
      DELETE FROM items WHERE order_id = o AND line = 2;
      UPDATE orders SET state = 'shipped', note = NULL WHERE client = who AND state = 'paid' AND id > o - 200 ORDER BY id LIMIT 20;
      UPDATE done SET seq = seq + 1 WHERE client = who;
      COMMIT;
    END IF;
    SET i = i + 1;
  END WHILE;
END//
DELIMITER ;
