import java.net.URI;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;

/**
 * What a program has written it reads, on another connection, at once: pgjdbc through the URL in DATABASE_URL, ROUNDS times.
 * Prints {@code ok pgjdbc} and {@code all ok} at the end.
 */
final class OwnWrites {
    private static Connection connect() throws SQLException {
        URI url = URI.create(System.getenv("DATABASE_URL"));
        String[] login = url.getUserInfo().split(":", 2);
        String jdbc = "jdbc:postgresql://" + url.getHost() + ":" + url.getPort() + url.getPath();
        return DriverManager.getConnection(jdbc, login[0], login.length > 1 ? login[1] : "");
    }

    public static void main(String[] arguments) throws SQLException {
        int rounds = Integer.parseInt(System.getenv("ROUNDS"));
        try (Connection writer = connect(); Connection reader = connect()) {
            writer.createStatement().execute("DROP TABLE IF EXISTS own_pgjdbc");
            writer.createStatement().execute("CREATE TABLE own_pgjdbc (id int PRIMARY KEY, name text)");
            // From the fifth time on, the driver uses named statements.
            PreparedStatement insert = writer.prepareStatement("INSERT INTO own_pgjdbc VALUES (?, ?)");
            PreparedStatement select = reader.prepareStatement("SELECT name FROM own_pgjdbc WHERE id = ?");
            for (int number = 0; number < rounds; number++) {
                write(writer, insert, number);
                read(reader, select, number);
            }
        }
        System.out.println("ok pgjdbc");
        System.out.println("all ok");
    }

    /** Every third time in a transaction, and every third time as a batch. */
    private static void write(Connection writer, PreparedStatement insert, int number) throws SQLException {
        insert.setInt(1, number);
        insert.setString(2, "number " + number);
        writer.setAutoCommit(number % 3 != 1);
        if (number % 3 == 2) {
            insert.addBatch();
            insert.executeBatch();
        } else {
            insert.executeUpdate();
        }
        if (!writer.getAutoCommit()) {
            writer.commit();
        }
    }

    /** Every fourth time in a read-only transaction. */
    private static void read(Connection reader, PreparedStatement select, int number) throws SQLException {
        boolean isReadOnly = number % 4 == 3;
        reader.setReadOnly(isReadOnly);
        reader.setAutoCommit(!isReadOnly);
        select.setInt(1, number);
        try (ResultSet rows = select.executeQuery()) {
            if (!rows.next() || !rows.getString(1).equals("number " + number)) {
                throw new AssertionError("row " + number + " was written and is not found");
            }
        }
        if (isReadOnly) {
            reader.commit();
            reader.setAutoCommit(true);
        }
    }
}
