import exchange.core2.collections.objpool.ObjectsPool;
import exchange.core2.core.common.CoreSymbolSpecification;
import exchange.core2.core.common.MatcherEventType;
import exchange.core2.core.common.MatcherTradeEvent;
import exchange.core2.core.common.OrderAction;
import exchange.core2.core.common.OrderType;
import exchange.core2.core.common.SymbolType;
import exchange.core2.core.common.cmd.CommandResultCode;
import exchange.core2.core.common.cmd.OrderCommand;
import exchange.core2.core.common.cmd.OrderCommandType;
import exchange.core2.core.common.config.LoggingConfiguration;
import exchange.core2.core.orderbook.IOrderBook;
import exchange.core2.core.orderbook.OrderBookDirectImpl;
import exchange.core2.core.orderbook.OrderBookEventsHelper;
import java.io.IOException;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.LongBuffer;

/**
 * Plays a script of calls on the direct order book of exchange-core and times it; no risk engine, one thread.
 *
 * <p>Standard input: records of five little-endian longs: cancel, buy, price, lots, number, of which the first FILLING fill
 * the book and are not timed. Standard output: the nanoseconds the rest took, then every fill as four longs: maker, taker,
 * price, lots. BookDriver FILLING ROUNDS plays all of it on a new book for each of some rounds, so that the compiler of the
 * virtual machine is done, and reports the last.
 */
public final class BookDriver {
    private static final int FIELDS = 5;
    private static final int FILL_FIELDS = 4;
    private static final int USER = 1;

    private final LongBuffer calls;
    private final long[] fills;
    private int filled;

    private BookDriver(final LongBuffer given) {
        calls = given;
        // Each call takes part in two fills at most: it ends, or it ends another.
        fills = new long[FILL_FIELDS * 2 * (given.capacity() / FIELDS + 1)];
    }

    private void play(final IOrderBook book, final OrderCommand command, final int first, final int last) {
        for (int at = first; at < last; at++) {
            final int base = at * FIELDS;
            final long number = calls.get(base + 4);
            command.orderId = number;
            command.matcherEvent = null;
            // What the risk engine would have said: without it the book does nothing.
            command.resultCode = CommandResultCode.VALID_FOR_MATCHING_ENGINE;
            if (calls.get(base) != 0) {
                command.command = OrderCommandType.CANCEL_ORDER;
                IOrderBook.processCommand(book, command);
                continue;
            }
            command.command = OrderCommandType.PLACE_ORDER;
            command.action = calls.get(base + 1) != 0 ? OrderAction.BID : OrderAction.ASK;
            command.price = calls.get(base + 2);
            command.reserveBidPrice = command.price;
            command.size = calls.get(base + 3);
            IOrderBook.processCommand(book, command);
            for (MatcherTradeEvent event = command.matcherEvent; event != null; event = event.nextEvent) {
                if (event.eventType == MatcherEventType.TRADE) {
                    fills[filled] = event.matchedOrderId;
                    fills[filled + 1] = number;
                    fills[filled + 2] = event.price;
                    fills[filled + 3] = event.size;
                    filled += FILL_FIELDS;
                }
            }
        }
    }

    private long round(final CoreSymbolSpecification symbol, final int filling) {
        final IOrderBook book = new OrderBookDirectImpl(
                symbol, ObjectsPool.createDefaultTestPool(), OrderBookEventsHelper.NON_POOLED_EVENTS_HELPER,
                LoggingConfiguration.DEFAULT);
        final OrderCommand command = new OrderCommand();
        command.symbol = symbol.symbolId;
        command.uid = USER;
        command.orderType = OrderType.GTC;
        filled = 0;
        play(book, command, 0, filling);
        final long begin = System.nanoTime();
        play(book, command, filling, calls.capacity() / FIELDS);
        return System.nanoTime() - begin;
    }

    public static void main(final String[] arguments) throws IOException {
        final int filling = Integer.parseInt(arguments[0]);
        final int rounds = Integer.parseInt(arguments[1]);
        // Libraries may print; the caller reads only the answer.
        final PrintStream answer = System.out;
        System.setOut(System.err);
        final byte[] input = System.in.readAllBytes();
        final BookDriver driver = new BookDriver(ByteBuffer.wrap(input).order(ByteOrder.LITTLE_ENDIAN).asLongBuffer());
        final CoreSymbolSpecification symbol = CoreSymbolSpecification.builder()
                .symbolId(1).type(SymbolType.CURRENCY_EXCHANGE_PAIR).baseCurrency(1).quoteCurrency(2)
                .baseScaleK(1).quoteScaleK(1).takerFee(0).makerFee(0).build();
        long nanoseconds = 0;
        for (int round = 0; round < rounds; round++) {
            nanoseconds = driver.round(symbol, filling);
        }
        final ByteBuffer output = ByteBuffer.allocate(8 * (1 + driver.filled)).order(ByteOrder.LITTLE_ENDIAN);
        output.putLong(nanoseconds);
        for (int at = 0; at < driver.filled; at++) {
            output.putLong(driver.fills[at]);
        }
        answer.write(output.array());
        answer.flush();
    }
}
