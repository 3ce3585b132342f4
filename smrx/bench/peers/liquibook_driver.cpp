// Plays a script of calls on a liquibook order book and times it.
//
// Standard input: records of five int64: cancel, buy, price, lots, number (see calls.py), of which the first `filling`
// (the only argument) fill the book and are not timed. Standard output: the nanoseconds the rest took, as one int64,
// then every fill as four int64: maker, taker, price, lots.

#include <book/order_book.h>
#include <book/order.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

struct Call {
    std::int64_t cancel, buy, price, lots, number;
};

struct Fill {
    std::int64_t maker, taker, price, lots;
};

class Order final : public liquibook::book::Order {
public:
    explicit Order(const Call& call) : call_(call) {}
    bool is_buy() const override { return call_.buy != 0; }
    liquibook::book::Price price() const override { return static_cast<liquibook::book::Price>(call_.price); }
    liquibook::book::Quantity order_qty() const override { return static_cast<liquibook::book::Quantity>(call_.lots); }
    std::int64_t number() const { return call_.number; }

private:
    Call call_;
};

using Pointer = const Order*;
using Amount = liquibook::book::Quantity;
using Book = liquibook::book::OrderBook<Pointer>;

// Listens by overriding the book's own hooks: the shortest way that the library offers.
class Listening final : public Book {
public:
    std::vector<Fill> fills;

protected:
    void perform_callback(TypedCallback& callback) override {
        if (callback.type == TypedCallback::cb_order_fill) {
            fills.push_back({callback.matched_order->number(), callback.order->number(),
                             static_cast<std::int64_t>(callback.price), static_cast<std::int64_t>(callback.quantity)});
        }
    }
};

void play(Book& book, const std::vector<Call>& calls, const std::vector<Order>& orders, std::size_t first,
          std::size_t last) {
    for (std::size_t at = first; at < last; ++at) {
        const Call& call = calls[at];
        const Order* order = &orders[static_cast<std::size_t>(call.number)];
        if (call.cancel != 0) {
            book.cancel(order);
        } else {
            book.add(order);
        }
    }
}

}  // namespace

int main(int count, char** arguments) {
    const std::size_t filling = count > 1 ? std::strtoull(arguments[1], nullptr, 10) : 0;
    std::vector<Call> calls;
    Call call{};
    while (std::fread(&call, sizeof call, 1, stdin) == 1) {
        calls.push_back(call);
    }
    // Order numbers start at 1.
    std::vector<Order> orders{Order{Call{}}};
    for (const Call& placed : calls) {
        if (placed.cancel == 0) {
            orders.emplace_back(placed);
        }
    }
    Listening book;
    book.fills.reserve(4 * calls.size());
    play(book, calls, orders, 0, filling);
    const auto begin = std::chrono::steady_clock::now();
    play(book, calls, orders, filling, calls.size());
    const std::chrono::nanoseconds took = std::chrono::steady_clock::now() - begin;
    const std::int64_t nanoseconds = took.count();
    std::fwrite(&nanoseconds, sizeof nanoseconds, 1, stdout);
    std::fwrite(book.fills.data(), sizeof(Fill), book.fills.size(), stdout);
    return 0;
}
